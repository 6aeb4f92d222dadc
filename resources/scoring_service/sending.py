"""Files of conversions on their way to Metrika: goal, request, answer, fate.

Whatever happens in between, a kill -9 too, ends in: sent once, or waiting for its next attempt, or refused
with Metrika's words.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from resources.errors import TransientSourceError
from resources.scoring_service.cipher import LedgerError
from resources.scoring_service.conversions import csv_file
from resources.scoring_service.uploads import TO_BATCH, Upload, Uploads

if TYPE_CHECKING:
    from resources.metrika.client import MetrikaClient
    from resources.metrika.errors import MetrikaRefusal

FIRST_WAIT, MOST_WAIT = timedelta(seconds=30), timedelta(hours=1)
GIVE_UP = timedelta(days=3)  # conversions are linked with visits of the last 21 days
DEADLINE = timedelta(hours=3)  # Metrika needs up to two hours
SETTLE = timedelta(seconds=60)  # after it a file that was on its way is in Metrika's list, or lost
GOAL_WAIT = timedelta(minutes=10)
MOST_SPLITS = 6


class Sender:
    """Sends files and asks about them. `client_of` gives the client of a stored token's number."""

    def __init__(
        self,
        uploads: Uploads,
        client_of: Callable[[int], MetrikaClient],
        *,
        create_goals: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._uploads = uploads
        self._client_of = client_of
        self._create_goals = create_goals
        self._now = now
        self._goals: dict[tuple[int, int, str], str | None] = {}

    def send(self, upload: Upload) -> str:
        """One attempt; says in a word or two what came of it."""
        from resources.metrika.errors import MetrikaRefusal

        try:
            client = self._client_of(upload.token_id)
            if problem := self._without_goal(client, upload):
                return self._later(upload, problem, GOAL_WAIT, unsent=upload.state == "ready")
            if upload.state == "sending" and (told := self._look_for(client, upload)):
                return told
            self._uploads.intend(upload)
            body = csv_file(upload.id_type, self._uploads.rows_of(upload))
            found = client.upload_conversions(upload.counter_id, body, upload.comment)
        except LedgerError as error:  # another key may be set
            return self._later(upload, str(error), GOAL_WAIT, unsent=upload.state == "ready")
        except MetrikaRefusal as refusal:
            return self._refused(upload, refusal)
        except TransientSourceError as busy:
            sent = getattr(busy, "sent", True) or upload.state == "sending"
            return self._later(upload, f"Metrika API error: {busy.description}", unsent=not sent)
        self._uploads.took(upload, found.id, found.status, found.line_quantity)
        return f"sent as {found.id}"

    def _look_for(self, client: MetrikaClient, upload: Upload) -> str | None:
        """An attempt of which nobody knows how it ended: the file is in Metrika's list, or it is not."""
        if found := client.find_uploading(upload.counter_id, upload.comment):
            self._uploads.took(upload, found.id, found.status, found.line_quantity)
            return f"was sent as {found.id}"
        if upload.sending_at and self._now() - upload.sending_at < SETTLE:
            return self._later(upload, "Отправка прервана, проверяется её исход", SETTLE, unsent=False)
        return None

    def _refused(self, upload: Upload, refusal: MetrikaRefusal) -> str:
        text = f"Metrika API error: {refusal.message or refusal.description}"
        if refusal.status == 429:  # the quota of the day comes back at midnight GMT
            midnight = (self._now() + timedelta(days=1)).replace(hour=0, minute=1, second=0)
            return self._later(upload, text, midnight - self._now(), unsent=True)
        if refusal.status == 400 and upload.rows > 1 and upload.splits < MOST_SPLITS:
            self._uploads.halve(upload)
            return "refused, halved"
        self._uploads.refuse(upload, text)
        return "refused"

    def _later(self, upload: Upload, error: str, wait: timedelta | None = None, *, unsent: bool) -> str:
        if self._now() - upload.created_at > GIVE_UP:
            self._uploads.refuse(upload, f"{error}; попытки прекращены через {GIVE_UP.days} сут.")
            return "given up"
        step = wait or min(FIRST_WAIT * 2 ** min(upload.attempts, 20), MOST_WAIT)
        self._uploads.postpone(upload, error, step, unsent=unsent)
        return f"postponed by {step.total_seconds():.0f} s"

    def _without_goal(self, client: MetrikaClient, upload: Upload) -> str | None:
        """What is wrong with the goal that the target names; None when conversions can reach it."""
        key = (upload.token_id, upload.counter_id, upload.target)
        if key not in self._goals:
            self._goals[key] = self._goal_problem(client, upload.counter_id, upload.target)
        return self._goals[key]

    def _goal_problem(self, client: MetrikaClient, counter: int, target: str) -> str | None:
        from resources.metrika.errors import MetrikaRefusal

        try:
            if any(goal.takes(target) for goal in client.goals(counter)):
                return None
            if self._create_goals:
                client.create_goal(counter, target)
                return None
        except MetrikaRefusal as refusal:
            # The scope metrika:offline_data may upload, but not list goals.
            return None if refusal.status in (403, 404) else f"Metrika API error: {refusal.description}"
        return (
            f"The counter {counter} has no JavaScript-event goal {target}: create it (POST /goals), "
            "or set SCORING_CREATE_GOALS=true"
        )

    def ask(self, upload: Upload) -> str:
        """What became of a sent file, as Metrika says now. Raises what the client raises."""
        if upload.metrika_id is None or not self._uploads.asked(upload):
            return "asked by another"
        overdue = upload.sent_at is not None and self._now() - upload.sent_at > DEADLINE
        try:
            found = self._client_of(upload.token_id).uploading(upload.counter_id, upload.metrika_id)
        except TransientSourceError:
            if overdue:
                self._uploads.refuse(upload, "Metrika gave no final status within 3 hours")
            raise
        state, error = "sent", None
        if TO_BATCH.get(found.status) == "completed":
            state, error = "done", _short_of(upload, found.line_quantity)
        elif TO_BATCH.get(found.status) == "error":
            state, error = "failed", f"Metrika status: {found.status}"
        elif overdue:
            state, error = (
                "failed",
                f"Metrika gave no final status within 3 hours (last: {found.status})",
            )
        self._uploads.told(upload, found.status, found.line_quantity, error, state)
        return found.status


def _short_of(upload: Upload, lines: int | None) -> str | None:
    if lines is None or lines >= upload.rows:
        return None
    return f"Metrika took {lines} of the {upload.rows} rows of file {upload.metrika_id}"


def pause_between_questions(upload: Upload, now: datetime) -> timedelta:
    """How long after the last question a status may be asked for again: the older, the longer.

    Somebody who asks all the time for the whole three hours costs some 300 of the day's 5000 requests.
    """
    age = now - (upload.sent_at or upload.created_at)
    return max(timedelta(seconds=1), age / 50)
