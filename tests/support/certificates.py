"""A private certificate authority for loopback TLS servers.

Nothing else trusts it, so a client that verifies against the wrong bundle, or against none, is found out.
"""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority and of the server certificate that it issued."""

    ca_file: Path
    server_chain: Path
    server_key: Path


def private_ca(directory: Path, *names: str) -> Certificates:
    """Write `ca.pem`, `server.pem` and `server.key` into `directory`, created if absent.

    The server certificate is good for `names`, by default for `127.0.0.1` and `localhost`. Each call makes
    another authority, so a second directory gives a bundle that is well-formed and wrong.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority = trustme.CA()
    server = authority.issue_cert(*(names or ("127.0.0.1", "localhost")))
    authority.cert_pem.write_to_path(files.ca_file)
    for position, blob in enumerate(server.cert_chain_pems):
        blob.write_to_path(files.server_chain, append=position > 0)
    files.server_key.touch(mode=0o600)
    server.private_key_pem.write_to_path(files.server_key)
    return files
