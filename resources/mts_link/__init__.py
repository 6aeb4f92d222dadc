"""MTS Link (once Webinar.ru) as a Dagster resource."""

import time
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from resources.errors import PermanentSourceError
from resources.http import Clock
from resources.mts_link.client import (
    DEFAULT_URL,
    RATE,
    Call,
    Exhausted,
    Incomplete,
    MtsLinkClient,
    Page,
    Refused,
)
from resources.mts_link.crowd import Ended
from resources.mts_link.paging import ONCE, Paging
from resources.mts_link.privacy import Scrubber

CLOCK: Clock = time  # of every client; tests hurry it

__all__ = [
    "DEFAULT_URL",
    "ONCE",
    "Call",
    "Ended",
    "Exhausted",
    "Incomplete",
    "MtsLinkClient",
    "MtsLinkResource",
    "Page",
    "Paging",
    "Refused",
    "Scrubber",
]


class MtsLinkResource(dg.ConfigurableResource):
    """One organisation, read with an API key within its rate."""

    token: str = Field(default="", repr=False, description="API key, header x-auth-token; a password.")
    base_url: str = Field(default=DEFAULT_URL, description="Base URL with /v3; an own host on premises.")
    oauth_token: str | None = Field(
        default=None, repr=False, description="OAuth access token with the scope `profile`, for user_profile."
    )
    rate: float = Field(default=RATE, ge=0, description="Requests a second, at most 2; 0 = no limit.")
    in_flight: int = Field(default=8, ge=1, le=32, description="Requests on the way at the same time.")
    timeout_s: float = Field(default=30, gt=0, description="Longest wait for one answer, seconds.")
    attempts: int = Field(default=5, ge=1, description="Attempts at one request.")
    ca_bundle: str | None = Field(default=None, description="File with CA certificates, behind a proxy.")
    state_dir: str | None = Field(default=None, description="Where processes share the rate; temporary.")
    pseudonym_key: str | None = Field(
        default=None, repr=False, description="Key of pseudonyms for e-mails and phones; plain without it."
    )

    _client: MtsLinkClient | None = PrivateAttr(default=None)

    @property
    def client(self) -> MtsLinkClient:
        """The client of this process, made at first use. Raises PermanentSourceError without a key."""
        if self._client is None:
            if not self.token:
                raise PermanentSourceError(
                    "MTS_LINK_API_TOKEN is not set: put it into .env (see .env.example) or the environment."
                )
            self._client = MtsLinkClient(
                self.token,
                base_url=self.base_url or DEFAULT_URL,
                oauth_token=self.oauth_token or None,
                rate=self.rate,
                in_flight=self.in_flight,
                timeout_s=self.timeout_s,
                attempts=self.attempts,
                ca_bundle=self.ca_bundle or None,
                state_dir=Path(self.state_dir) if self.state_dir else None,
                clock=CLOCK,
            )
        return self._client

    @property
    def scrubber(self) -> Scrubber:
        return Scrubber(self.pseudonym_key or None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections when the run is over."""
        if self._client is not None:
            self._client.close()
            self._client = None
