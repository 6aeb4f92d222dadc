"""Yandex.Metrika as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from resources.metrika.client import MetrikaClient, Usage
from resources.metrika.errors import MetrikaBusy, MetrikaRefusal
from resources.metrika.objects import Ask, Counter, Evaluation, Goal, LogRequest, Uploading

__all__ = [
    "Ask",
    "Counter",
    "Evaluation",
    "Goal",
    "LogRequest",
    "MetrikaBusy",
    "MetrikaClient",
    "MetrikaRefusal",
    "MetrikaResource",
    "Uploading",
    "Usage",
]


class MetrikaResource(dg.ConfigurableResource):
    """The API with one OAuth token, within the quotas of its login."""

    url: str = Field(default="https://api-metrika.yandex.net", description="Address of the API.")
    token: str = Field(default="", repr=False, description="OAuth token; it is a password.")
    ca_bundle: str | None = Field(default=None, description="A CA bundle, for a proxy with a private CA.")
    state_dir: str | None = Field(default=None, description="Where processes share the quotas.")
    per_second: float = Field(
        default=8, ge=0, description="Requests a second (10 are allowed); 0 = no limit."
    )
    parallel: int = Field(default=3, ge=0, description="Requests at once (3 are allowed); 0 = no limit.")
    timeout_s: float = Field(default=120, gt=0, description="Longest silence of an answer, seconds.")
    give_up_s: float = Field(default=300, gt=0, description="Longest wait for one call to succeed, seconds.")
    gzip: bool = Field(default=True, description="Ask for compressed parts.")
    poll_s: float = Field(default=10, gt=0, description="Seconds between looks at a log request; they grow.")
    deadline_s: float = Field(default=7200, gt=0, description="Longest wait for a log request, seconds.")
    client_id_type: str = Field(default="", description="Sent with uploads if set; no longer documented.")

    _client: MetrikaClient | None = PrivateAttr(default=None)

    @property
    def client(self) -> MetrikaClient:
        """The client of this process, made at first use. Raises PermanentSourceError without a token."""
        if self._client is None:
            self._client = self.client_for(self.token)
        return self._client

    def client_for(self, token: str) -> MetrikaClient:
        """A client with another token, for work that others ask for; the caller closes it."""
        return MetrikaClient(
            self.url,
            token,
            ca_bundle=self.ca_bundle or None,
            state_dir=Path(self.state_dir) if self.state_dir else None,
            per_second=self.per_second,
            parallel=self.parallel,
            timeout_s=self.timeout_s,
            give_up_s=self.give_up_s,
            gzip=self.gzip,
            client_id_type=self.client_id_type,
        )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections when the run is over."""
        if self._client is not None:
            self._client.close()
            self._client = None
