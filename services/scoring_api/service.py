"""What the routes work with: ledger, intake, limits, Metrika; one object a process, given to the app."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from starlette.concurrency import run_in_threadpool

from resources.http import redact
from resources.scoring_service.ledger import Ledger
from resources.scoring_service.sending import Sender, pause_between_questions
from resources.scoring_service.uploads import Uploads
from services.scoring_api.intake import Intake
from services.scoring_api.limits import RateWindow
from services.scoring_api.migrate import migrate
from services.scoring_api.settings import Settings

if TYPE_CHECKING:
    from resources.metrika.client import MetrikaClient

HOOK_LIVES_S = 5.0  # how long another process's change of a webhook may go unseen
MOST_CLIENTS = 32
MOST_QUESTIONS = 5  # to Metrika, for one answer of ours
TRY_AGAIN_S = 1.0
FORGET_EVERY_S = 600.0
log = logging.getLogger("scoring_api")

_HOOK = """SELECT counter_id, token_id, secret_hash, is_active FROM scoring.webhooks
WHERE id = $1 AND deleted_at IS NULL"""


@dataclass(frozen=True, slots=True)
class Hook:
    """What a webhook's requests are checked against."""

    id: uuid.UUID
    counter_id: int
    token_id: int
    secret_hash: bytes
    is_active: bool


class Service:
    """Storage and limits of one process. Tests give a ledger and an intake of their own."""

    def __init__(
        self, settings: Settings, ledger: Ledger | None = None, intake: Intake | None = None
    ) -> None:
        self.settings = settings
        self.ledger = ledger or Ledger(settings.database, settings.cipher)
        self.intake = intake or Intake(settings.database)
        self.uploads = Uploads(self.ledger)
        self.sender = Sender(self.uploads, self._client)
        self.rate = RateWindow(settings.webhook_rate)
        self.ready = False
        self._hooks: dict[uuid.UUID, tuple[float, Hook | None]] = {}
        self._clients: OrderedDict[int, MetrikaClient] = OrderedDict()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ready as soon as the database answers; without it every request is told to come again."""
        preparing = asyncio.create_task(self._prepare())
        try:
            yield
        finally:
            preparing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await preparing
            await self.intake.stop()
            self.ledger.close()
            for client in self._clients.values():
                client.close()

    async def _prepare(self) -> None:
        told = ""
        while not self.ready:
            try:
                await run_in_threadpool(migrate, self.ledger.engine)
                await self.intake.start()
                self.ready = True
            except Exception as error:  # whatever it is, it may be mended while we run
                if (said := _why(error)) != told:
                    log.warning("The database cannot be used, trying until it can: %s", said)
                told = said
                await asyncio.sleep(TRY_AGAIN_S)
        while True:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self.intake.forget_keys()
            await asyncio.sleep(FORGET_EVERY_S)

    # Webhooks

    async def hook(self, webhook_id: uuid.UUID) -> Hook | None:
        """A webhook that is not deleted. Raises StorageAway."""
        now = time.monotonic()
        seen = self._hooks.get(webhook_id)
        if seen and seen[0] > now:
            return seen[1]
        row = await self.intake.fetchrow(_HOOK, webhook_id)
        if row is None:  # not kept: guesses would fill the memory
            self.forget_hook(webhook_id)
            return None
        hook = Hook(webhook_id, *row)
        self._hooks[webhook_id] = (now + HOOK_LIVES_S, hook)
        return hook

    def forget_hook(self, webhook_id: uuid.UUID) -> None:
        """It was changed or deleted."""
        self._hooks.pop(webhook_id, None)

    # Metrika

    def _client(self, token_id: int) -> MetrikaClient:
        """A client that does not keep a person waiting. Blocks."""
        from resources.metrika.client import MetrikaClient

        if client := self._clients.get(token_id):
            self._clients.move_to_end(token_id)
            return client
        state = os.environ.get("SVOD_STATE_DIR")
        client = MetrikaClient(
            self.settings.metrika_url,
            self.ledger.token(token_id),
            ca_bundle=self.settings.metrika_ca_bundle,
            state_dir=Path(state) if state else None,
            timeout_s=10,
            give_up_s=2,
        )
        self._clients[token_id] = client
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)[1].close()
        return client

    def client_of(self, token: str) -> MetrikaClient:
        """The client of a token, for goals. Blocks."""
        return self._client(self.ledger.token_id(token))

    def refresh(self, batch_id: uuid.UUID) -> None:
        """Ask Metrika about the batch's files, unless that was done a moment ago. Blocks.

        Where Metrika does not answer, what is known stays.
        """
        from resources.errors import PermanentSourceError, TransientSourceError

        now = datetime.now(UTC)
        for upload in self.uploads.sent_of(batch_id)[:MOST_QUESTIONS]:
            if upload.polled_at and now - upload.polled_at < pause_between_questions(upload, now):
                continue
            try:
                self.sender.ask(upload)
            except (TransientSourceError, PermanentSourceError) as error:
                log.warning("Metrika was asked about a file: %s", redact(error.description or ""))
                return


def _why(error: Exception) -> str:
    """One line, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    return redact((str(cause).strip().splitlines() or [type(error).__name__])[0])
