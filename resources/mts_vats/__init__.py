"""Cabinets of MTS VATS as a Dagster resource, and the class that programs of the old client use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from resources.errors import PermanentSourceError
from resources.mts_vats import settings
from resources.mts_vats.client import IncompleteError, MtsVatsClient, Trunk
from resources.mts_vats.session import Cabinet
from resources.mts_vats.vault import SETTING as KEY_SETTING
from resources.mts_vats.vault import Vault

if TYPE_CHECKING:
    from resources.mts_vats.compat import VATS

__all__ = ["VATS", "Cabinet", "IncompleteError", "MtsVatsClient", "MtsVatsResource", "Trunk", "Vault"]


class MtsVatsResource(dg.ConfigurableResource):
    """The cabinets of the settings. Logins and passwords are read from the environment when they are used,
    and are in no run config."""

    concurrency: int = Field(
        default=1, ge=1, le=8, description="Calls of a cabinet at once; the cabinet itself breaks beyond 1."
    )
    page_size: int = Field(default=100, ge=1, le=1000, description="Rows of a page of the list.")
    filters: str = Field(
        default="", description="The list's fields f0 to f3 as JSON, null, true or false each."
    )
    read_passwords: bool = Field(default=False, description="Keep SIP passwords, encrypted.")
    allow_empty: bool = Field(default=False, description="A cabinet that had trunks may list none.")

    def names(self) -> list[str]:
        """Names of the cabinets. Raises PermanentSourceError naming the variable that is wrong."""
        return [cabinet.name for cabinet in settings.cabinets()]

    @contextmanager
    def client(self, name: str, *, secrets: bool | None = None) -> Iterator[MtsVatsClient]:
        """A client of one cabinet, which is logged in at its first call and closed with the block."""
        found = next((c for c in settings.cabinets() if c.name == name), None)
        if found is None:
            raise PermanentSourceError(
                f"There is no cabinet {name}; the settings name {', '.join(self.names())}."
            )
        client = MtsVatsClient(
            found,
            concurrency=self.concurrency,
            page_size=self.page_size,
            filters=settings.filters(self.filters),
            secrets=self.read_passwords if secrets is None else secrets,
        )
        try:
            yield client
        finally:
            client.close()

    def vault(self) -> Vault | None:
        """What encrypts passwords; None where they are not kept."""
        return Vault(os.environ.get(KEY_SETTING, "")) if self.read_passwords else None


def __getattr__(name: str) -> object:
    if name == "VATS":
        from resources.mts_vats.compat import VATS

        return VATS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
