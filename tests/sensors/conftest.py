"""The mark of tests that wait for other processes."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: waits for a real webserver and daemon, up to a few minutes")
