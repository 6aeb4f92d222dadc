"""`python -m cli.child PARENT COMMAND…`: a command that is asked to stop when the process PARENT is no more.

Whoever is stopped by a signal that can be handled ends its children itself; one that was killed outright, by
`kill -9` or for want of memory, cannot. Linux only: elsewhere the command just runs.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tied(command: list[str]) -> list[str]:
    """The command, tied to this process; to be started in its main thread, since Linux watches the thread."""
    return [sys.executable, "-m", "cli.child", str(os.getpid()), *command]


def main(parent: int, command: list[str]) -> None:
    """Become the command."""
    with suppress(OSError, AttributeError):  # another system
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == parent:  # else it died before it was watched
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
