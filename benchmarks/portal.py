"""The sandbox portal over TLS in a process of its own: `python -m benchmarks.portal CONFIG_JSON FOLDER`.

FOLDER gets `ca.pem`, to be trusted by the clients. Prints the webhook URL and runs until it is terminated.
"""

import json
import signal
import sys
import threading
from pathlib import Path

import trustme

from sandbox.bitrix24 import PortalConfig, serve


def main() -> None:
    """Command line of the module."""
    config, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    if config.get("rate_limit"):
        config["rate_limit"] = tuple(config["rate_limit"])
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    key = folder / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(key))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with serve(PortalConfig(**config), certfile=key, keyfile=key) as portal:
        print(portal.webhook_url, flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
