"""The Bitrix24 portal as a Dagster resource."""

from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field, PrivateAttr

from resources.bitrix24.calls import FALSE_MARK, PAGE, CommandError, ListCall, RecordBatch, Window
from resources.bitrix24.client import Bitrix24Client
from resources.bitrix24.credentials import Application, Webhook
from resources.bitrix24.faults import failure
from resources.bitrix24.portal import ClientStats
from resources.bitrix24.preflight import PreflightRow, preflight
from resources.errors import PermanentSourceError

__all__ = [
    "FALSE_MARK",
    "PAGE",
    "Bitrix24Client",
    "Bitrix24Resource",
    "ClientStats",
    "CommandError",
    "ListCall",
    "PreflightRow",
    "RecordBatch",
    "Window",
    "failure",
    "preflight",
]


class Bitrix24Resource(dg.ConfigurableResource):
    """One portal, read through an inbound webhook or as an application, within its limits."""

    webhook_url: str = Field(
        default="",
        repr=False,
        description="https://<portal>/rest/<user id>/<code>/; the code is a password.",
    )
    client_id: str = Field(default="", description="Of an application; without one the webhook asks.")
    client_secret: str = Field(default="", repr=False, description="Of the application.")
    refresh_token: str = Field(default="", repr=False, description="The first one; its successors are kept.")
    auth_url: str = Field(default="", description="Authorization server; default: the documented ones.")
    bucket_capacity: float = Field(
        default=50, ge=0, description="Requests at once (50; Enterprise 250); 0 = no limit."
    )
    bucket_per_second: float = Field(
        default=2.0, gt=0, description="Requests a second after the burst (Enterprise 5)."
    )
    bucket_reserve: float = Field(
        default=1, ge=0, description="Requests of the burst left to others on this address."
    )
    in_flight: int = Field(default=4, ge=1, le=32, description="Requests sent at the same time.")
    batch_rows: int = Field(default=2500, ge=50, description="Rows asked for in one request; 50 a command.")
    operating_limit_s: float = Field(
        default=400,
        ge=0,
        description="Execution seconds a method may use in ten minutes; the portal allows 480.",
    )
    operating_wait_s: float = Field(default=1800, ge=0, description="Longest wait for that budget, seconds.")
    request_target_s: float = Field(
        default=20, gt=0, description="Duration a batch is sized for; the portal cuts at 60."
    )
    timeout_s: float = Field(default=70, gt=0, description="Longest wait for one answer, seconds.")
    max_attempts: int = Field(default=6, ge=1, description="Attempts at one request before the step fails.")
    ca_bundle: str | None = Field(
        default=None, description="Path of a CA bundle, for a portal with a private CA."
    )
    state_dir: str | None = Field(
        default=None, description="Where processes share the rate bucket; default: temporary."
    )
    date_style: Literal["iso", "sql"] = Field(
        default="iso", description="How dates in filters are written first."
    )
    timezone: str | None = Field(
        default=None, description="The portal's zone for `sql` dates; default: as it answers."
    )

    _client: Bitrix24Client | None = PrivateAttr(default=None)

    @property
    def client(self) -> Bitrix24Client:
        """The client of this process, made at first use. Raises PermanentSourceError for a malformed URL."""
        if self._client is None:
            self._client = Bitrix24Client(
                self.credential(),
                bucket_capacity=self.bucket_capacity,
                bucket_per_second=self.bucket_per_second,
                bucket_reserve=self.bucket_reserve,
                in_flight=self.in_flight,
                batch_rows=self.batch_rows,
                operating_limit_s=self.operating_limit_s,
                operating_wait_s=self.operating_wait_s,
                request_target_s=self.request_target_s,
                timeout_s=self.timeout_s,
                ca_bundle=self.ca_bundle or None,
                state_dir=Path(self.state_dir) if self.state_dir else None,
                max_attempts=self.max_attempts,
                date_style=self.date_style,
                timezone=self.timezone or None,
            )
        return self._client

    def credential(self) -> Webhook | Application:
        """Who asks. Raises PermanentSourceError for a setting that is missing or malformed."""
        if not self.client_id:
            return Webhook(self.webhook_url)
        if not self.state_dir:
            raise PermanentSourceError(
                "SVOD_STATE_DIR is not set: the application's tokens are kept there, and they must last."
            )
        return Application(
            self.client_id,
            self.client_secret,
            refresh_token=self.refresh_token,
            auth_url=self.auth_url,
            directory=Path(self.state_dir),
            ca_bundle=self.ca_bundle or None,
        )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections when the run is over."""
        if self._client is not None:
            self._client.close()
            self._client = None
