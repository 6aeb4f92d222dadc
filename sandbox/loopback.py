"""Where the emulators may be heard: on this machine only."""

import ipaddress


def require_loopback(host: str) -> None:
    """The emulators have no protection of their own. Raises ValueError for other addresses."""
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"the sandbox listens on loopback only, not on {host}")
