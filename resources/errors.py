"""The two ways a source can fail, as Dagster failures that say what the user must do."""

from collections.abc import Mapping
from typing import Any

import dagster as dg


class TransientSourceError(dg.Failure):
    """Another attempt may succeed: a limit, a timeout, a server fault. Retries are allowed."""

    def __init__(self, description: str, metadata: Mapping[str, Any] | None = None) -> None:
        """`description` is one sentence for the user and never holds a URL with a secret."""
        super().__init__(description=description, metadata=metadata, allow_retries=True)


class PermanentSourceError(dg.Failure):
    """Repeating will not help: the user must change something, and `description` says what."""

    def __init__(self, description: str, metadata: Mapping[str, Any] | None = None) -> None:
        """`description` is one sentence for the user and never holds a URL with a secret."""
        super().__init__(description=description, metadata=metadata, allow_retries=False)
