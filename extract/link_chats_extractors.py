"""The old command line of this group; `svod mts-link` is the new one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli.mts_link import main

if __name__ == "__main__":
    sys.exit(main("chats"))
