"""What the tests of the models share."""

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small models on one core: threads that wait for each other take longer than the work."""
    with threadpool_limits(1):
        yield
