"""The scoring service's ledger as a Dagster resource, and Metrika with the tokens of those who use it."""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import sqlalchemy.exc
from pydantic import Field, PrivateAttr

from resources.errors import PermanentSourceError, TransientSourceError
from resources.metrika import MetrikaClient, MetrikaResource
from resources.postgres import OPERATIONS_SETTING, PostgresError, database_url
from resources.scoring_service.cipher import SETTING, LedgerError, TokenCipher
from resources.scoring_service.ledger import Ledger
from resources.scoring_service.sending import Sender
from resources.scoring_service.uploads import Uploads

TASK_TAG = "scoring/task"  # a run with it works for this task, with the task's token
NO_TABLES = "The scoring service has not been started yet, so there are no tables"
NEEDS = (OPERATIONS_SETTING, SETTING)


class ScoringServiceResource(dg.ConfigurableResource):
    """Tasks and conversions that the service accepted.

    Database and key are read from the environment when they are first used: as values of fields they would
    be in the run's configuration.
    """

    metrika_url: str = Field(default="https://api-metrika.yandex.net", description="Address of the API.")
    ca_bundle: str | None = Field(default=None, description="A CA bundle, for a proxy with a private CA.")
    state_dir: str | None = Field(default=None, description="Where processes share Metrika's quotas.")
    create_goals: bool = Field(default=False, description="Create goals that conversions name and lack.")
    give_up_s: float = Field(default=60, gt=0, description="Longest wait for one call to succeed, seconds.")

    _ledger: Ledger | None = PrivateAttr(default=None)
    _clients: dict[int, MetrikaClient] = PrivateAttr(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        """Raises PermanentSourceError that names a setting."""
        if self._ledger is None:
            self._ledger = ledger_from_environ()
        return self._ledger

    @property
    def uploads(self) -> Uploads:
        return Uploads(self.ledger)

    @property
    def sender(self) -> Sender:
        return Sender(self.uploads, self._client, create_goals=self.create_goals)

    def _client(self, token_id: int) -> MetrikaClient:
        if token_id not in self._clients:
            self._clients[token_id] = MetrikaClient(
                self.metrika_url,
                self.ledger.token(token_id),
                ca_bundle=self.ca_bundle or None,
                state_dir=Path(self.state_dir) if self.state_dir else None,
                give_up_s=self.give_up_s,
            )
        return self._clients[token_id]

    @contextmanager
    def available(self) -> Iterator[bool]:
        """Whether the service has made its tables. Errors of the database become one line."""
        try:
            yield self.ledger.ready()
        except sqlalchemy.exc.OperationalError:
            raise TransientSourceError(f"The database of {OPERATIONS_SETTING} does not answer.") from None
        except LedgerError as error:
            raise PermanentSourceError(str(error)) from None
        finally:
            self._close()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections when the run is over."""
        self._close()

    def _close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


class TaskMetrikaResource(MetrikaResource):
    """Metrika with the usual token; in a run that works for a task of the service, with the task's."""

    _of_task: str | None = PrivateAttr(default=None)
    _work: ExitStack = PrivateAttr(default_factory=ExitStack)

    @property
    def client(self) -> MetrikaClient:
        """Raises PermanentSourceError without a token."""
        if self._client is None:
            self._client = self.client_for(self._of_task or self.token)
        return self._client

    @classmethod
    def like(cls, usual: MetrikaResource) -> "TaskMetrikaResource":
        """With the same settings."""
        return cls(**{name: getattr(usual, name) for name in MetrikaResource.model_fields})

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Take the task's token, and be seen at work. Raises PermanentSourceError without such a task."""
        task_id = context.run.tags.get(TASK_TAG) if context.run else None
        if not task_id:
            return
        ledger = ledger_from_environ()
        self._work.callback(ledger.close)
        try:
            task = ledger.task(uuid.UUID(task_id))
            if task is None:
                raise PermanentSourceError(f"There is no task {task_id}.")
            self._of_task = ledger.token(task["token_id"])
            self._work.enter_context(ledger.at_work(task["id"]))
        except LedgerError as error:
            raise PermanentSourceError(str(error)) from None

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections when the run is over."""
        self._work.close()
        super().teardown_after_execution(context)


def ledger_from_environ() -> Ledger:
    """Raises PermanentSourceError that names the setting."""
    try:
        cipher = TokenCipher(os.environ.get(SETTING, ""))
        return Ledger(database_url(setting=OPERATIONS_SETTING), cipher)
    except (LedgerError, PostgresError) as error:
        raise PermanentSourceError(str(error)) from None
