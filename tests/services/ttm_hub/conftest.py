"""A hub that several tests share, each with instances of its own."""

from collections.abc import Iterator

import pytest

from tests.services.ttm_hub.hub_house import RunningHub, running_hub


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    with running_hub(failures=1000) as running:
        yield running
