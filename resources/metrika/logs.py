"""Raw logs of a counter: ordered, waited for, streamed part by part, and cleaned up after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import Backoff, Clock, TransportError
from resources.metrika.client import MetrikaClient
from resources.metrika.errors import MetrikaBusy, MetrikaRefusal
from resources.metrika.objects import GONE, WAITING, Ask, Evaluation, LogRequest
from resources.metrika.parts import BrokenPart, Received, blocks, inflate

MOST_DAYS = 365  # of one request: "no more than a year"
ORDERS = 3  # of the same log: a failed preparation, files that another run cleaned
PART_ATTEMPTS = 5
CROWDED = Backoff(first_s=5, most_s=30)  # another request must end first
POLL_GROWTH, POLL_MOST_S = 1.5, 60.0
Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that came of a log.

    `rows`: `count` lines, under `header`. `kept`: the part is complete. `again`: the lines since the last
    complete part are void, they come again. `anew`: all lines are void, the whole log comes again.
    """

    event: Literal["rows", "kept", "again", "anew"]
    read_at: datetime
    request_id: int = 0
    header: bytes = b""
    lines: bytes = b""
    count: int = 0


@dataclass(slots=True)
class Downloaded:
    """What was downloaded for good: lines without headers, bytes on the wire and of text, parts, repeats."""

    lines: int = 0
    wire: int = 0
    text: int = 0
    parts: int = 0
    again: int = 0


class LogReader:
    """Reads logs with one client. `tell` takes lines for the run's log, as `logging` does."""

    def __init__(
        self,
        client: MetrikaClient,
        *,
        poll_s: float = 10,
        deadline_s: float = 7200,
        tell: Tell = lambda *_: None,
        clock: Clock = time,
    ) -> None:
        self.client, self.downloaded = client, Downloaded()
        self._poll_s, self._deadline_s = poll_s, deadline_s
        self._tell, self._clock = tell, clock
        self._sizes_tell = True

    # What to ask for

    def fitting(self, ask: Ask, optional: frozenset[str] = frozenset()) -> Ask:
        """As much of `ask`, from its first day on, as one request may hold; fields that the counter does not
        know are left out if they are `optional`.

        Raises MetrikaRefusal when the counter has no room even for a day.
        """
        ask = replace(ask, last=min(ask.last, ask.first + timedelta(days=MOST_DAYS - 1)))
        ask, found = self._evaluated(ask, optional)
        if not found.possible and self._held(ask):
            return ask
        if not found.possible and found.days < 1:
            self._clean_leftovers(ask)
            found = self.client.evaluate(ask)
        if found.possible:
            return ask
        span = (ask.last - ask.first).days + 1
        days = min(found.days, span - 1)
        if days < 1:
            raise self._no_room(ask, found)
        self._tell("Counter %d has room for %d of %d days of %s", ask.counter, days, span, ask.source)
        return replace(ask, last=ask.first + timedelta(days=days - 1))

    def _evaluated(self, ask: Ask, optional: frozenset[str]) -> tuple[Ask, Evaluation]:
        try:
            return ask, self.client.evaluate(ask)
        except MetrikaRefusal as error:
            fewer = replace(ask, fields=tuple(f for f in ask.fields if f not in optional))
            if error.error_type != "invalid_parameter" or fewer.fields == ask.fields:
                raise
        found = self.client.evaluate(fewer)
        self._tell("Counter %d does not know %s: it is left out", ask.counter, ", ".join(optional))
        return fewer, found

    def _clean_leftovers(self, ask: Ask) -> None:
        """Clean what killed runs left: prepared logs of these very fields."""
        for request in self.client.log_requests(ask.counter):
            mine = (request.source, request.fields) == (ask.source, ask.fields)
            if request.status == "processed" and mine and not request.answers(ask):
                self._tell("Cleaning log request %d, which is left from another run", request.request_id)
                self._tidy(ask, request)

    def _no_room(self, ask: Ask, found: Evaluation) -> MetrikaRefusal:
        if found.days > 0:
            text = "a single day does not fit into one log request: only fewer fields would help"
            return MetrikaRefusal(f"Metrika, counter {ask.counter}: {text}.", 400, "no_room", "")
        text = f"no room is left for prepared logs; clean requests that are kept: {self._kept(ask)}"
        return MetrikaRefusal(f"Metrika, counter {ask.counter}: {text}.", 400, "no_room", "")

    def _refused_order(self, ask: Ask, error: MetrikaRefusal) -> MetrikaRefusal:
        """No type of error is documented for a full counter; the fields have been evaluated before."""
        text = (
            f"{error.description} If the counter has no room for more logs: clean requests that are kept: "
            f"{self._kept(ask)}."
        )
        return MetrikaRefusal(text, error.status, error.error_type, error.message)

    def _kept(self, ask: Ask) -> str:
        """Prepared logs of the counter, for a message."""
        kept = [r for r in self.client.log_requests(ask.counter) if r.status == "processed"]
        names = ", ".join(f"{r.request_id} ({r.source}, {r.size / 1e9:.1f} GB)" for r in kept[:10])
        return names or "none is listed"

    def order(self, ask: Ask) -> LogRequest:
        """The request that holds this log: one that is there already, so that a restarted run goes on with
        it, or a new one."""
        waits = Backoff().waits()
        while True:
            if found := self._held(ask):
                self._tell("Log request %d holds %s already", found.request_id, ask.source)
                return found
            try:
                return self.client.create_log_request(ask)
            except MetrikaBusy:  # perhaps it was made all the same: then it is in the list
                if (wait := next(waits, None)) is None:
                    raise
            except MetrikaRefusal as error:
                if error.error_type == "limit_exceeded":
                    raise self._no_room(ask, Evaluation(False, 0)) from None
                if error.error_type not in ("invalid_parameter", "access_denied"):
                    raise
                raise self._refused_order(ask, error) from None
            self.client.sleep(wait)

    def _held(self, ask: Ask) -> LogRequest | None:
        """A request that holds this log, or will."""
        listed = self.client.log_requests(ask.counter)
        usable = [r for r in listed if r.answers(ask) and r.status in (*WAITING, "processed")]
        return max(usable, key=lambda r: (r.status == "processed", r.request_id), default=None)

    # The log itself

    def pieces(self, ask: Ask) -> Generator[Piece]:
        """The whole log, or an error. Its request is cleaned, or cancelled, whatever happens."""
        before, left = replace(self.downloaded), ORDERS
        while True:
            request, left = self.order(ask), left - 1
            try:
                request = self._prepared(ask, request)
                if request.status == "processed":
                    yield from self._parts(ask, request)
                    return
            except _Gone:
                self.downloaded = replace(before, again=self.downloaded.again + 1)
                yield Piece("anew", self.client.now())
            finally:
                self._tidy(ask, request)
            lost = f"log request {request.request_id} for {ask.source} came to nothing ({request.status})"
            if not left:
                raise TransientSourceError(
                    f"Metrika, counter {ask.counter}: {lost}, and so did the {ORDERS - 1} before it."
                )
            self._tell("Counter %d: %s; it is ordered anew", ask.counter, lost)

    def _prepared(self, ask: Ask, request: LogRequest) -> LogRequest:
        """Wait until it is processed, failed or gone; cancelled at the deadline (by `pieces`)."""
        began, pause = self._clock.time(), self._poll_s
        while request.status in WAITING:
            if self._clock.time() - began + pause > self._deadline_s:
                raise PermanentSourceError(
                    f"Metrika, counter {ask.counter}: log request {request.request_id} for {ask.source} was "
                    f"not ready after {self._deadline_s:.0f} s and is cancelled. Run again later, or raise "
                    "METRIKA_DEADLINE_S."
                )
            self.client.sleep(pause)
            pause = min(pause * POLL_GROWTH, max(POLL_MOST_S, self._poll_s))
            request = self.client.log_request(ask.counter, request.request_id)
        if request.status in ("processed", "processing_failed") or request.status in GONE:
            return request
        said = (
            "was cancelled" if request.status == "canceled" else f"has the unknown status {request.status!r}"
        )
        raise PermanentSourceError(
            f"Metrika, counter {ask.counter}: log request {request.request_id} for {ask.source} {said}."
        )

    def _parts(self, ask: Ask, request: LogRequest) -> Iterator[Piece]:
        if not request.parts:  # a log without rows may have none; an answer on its way would have them later
            self.client.sleep(self._poll_s)
            request = self.client.log_request(ask.counter, request.request_id)
        if not request.parts and request.size:
            raise TransientSourceError(
                f"Metrika, counter {ask.counter}: log request {request.request_id} has {request.size} bytes "
                "and names no parts."
            )
        for number, size in request.parts:
            yield from self._part(ask, request, number, size)
            self.downloaded.parts += 1
            yield Piece("kept", self.client.now(), request.request_id)
            self._tell("%s, part %d of %d is in", ask.source, number + 1, len(request.parts))

    def _part(self, ask: Ask, request: LogRequest, number: int, size: int) -> Iterator[Piece]:
        """The lines of one part, fetched again until it comes whole."""
        waits, crowded, left, short, before = Backoff().waits(), CROWDED.waits(), PART_ATTEMPTS, 0, 0
        while True:
            received = Received()
            whole = partial(_whole, received, size, before)
            try:
                yield from self._stream(ask, request, number, received, whole)
                if self._sizes_tell and max(received.text, received.wire) < size:
                    if received.text != short:
                        short = received.text
                        raise BrokenPart(f"{received.text} bytes came of {size}")
                    self._sizes_tell = False  # twice the same: the announced size counts something else
                self._received(received)
                return
            except (BrokenPart, TransportError) as error:
                trouble, wait = str(error), next(waits, POLL_MOST_S)
            except MetrikaBusy as error:
                quota = error.error_type.startswith("quota_")
                left += quota  # another's request is in the way: that is no attempt
                trouble, wait = error.description or "", next(crowded if quota else waits, None)
                if wait is not None and error.after is not None:
                    wait = min(error.after, POLL_MOST_S)
            except MetrikaRefusal as error:
                self._refused(ask, request, error)
                trouble, wait = error.message, next(waits, None)
            left, before = left - 1, received.text
            self.downloaded.again += 1
            if received.lines:
                yield Piece("again", self.client.now())
            name = f"part {number} of log request {request.request_id}"
            lost = f"Metrika, counter {ask.counter}: {name}: {trouble}"
            if left < 1 or wait is None:
                raise TransientSourceError(f"{lost}. It was asked for {PART_ATTEMPTS} times.")
            self._tell("%s; it is fetched again", lost)
            self.client.sleep(wait)

    def _received(self, received: Received) -> None:
        self.downloaded.lines += received.lines
        self.downloaded.wire += received.wire
        self.downloaded.text += received.text

    def _stream(
        self, ask: Ask, request: LogRequest, number: int, received: Received, whole: Callable[[], bool]
    ) -> Iterator[Piece]:
        with self.client.part(ask.counter, request.request_id, number) as answer:
            at = self.client.now()
            for block in blocks(inflate(answer.chunks, received), ask.fields, received, whole):
                yield Piece("rows", at, request.request_id, block.header, block.lines, block.count)

    def _refused(self, ask: Ask, request: LogRequest, error: MetrikaRefusal) -> None:
        """A part that is refused: the files may be gone, or not be there yet. Raises otherwise."""
        if error.status not in (400, 404):
            raise error
        try:
            now = self.client.log_request(ask.counter, request.request_id)
        except MetrikaRefusal as gone:
            raise (_Gone() if gone.status == 404 else gone) from None
        if now.status in GONE:
            raise _Gone from None
        if now.status == "processed" and "processed" not in error.message:
            raise error

    def _tidy(self, ask: Ask, request: LogRequest) -> None:
        """Free the counter's room. A failure is a warning: the service frees it by itself some day."""
        acts = [self.client.clean_log_request]
        if request.status in WAITING:  # it may have become ready meanwhile
            acts.insert(0, self.client.cancel_log_request)
        elif request.status != "processed":
            return
        for act in acts:
            with contextlib.suppress(MetrikaRefusal):  # not in that state (any more)
                try:
                    act(ask.counter, request.request_id)
                except TransientSourceError as error:
                    self._tell("Log request %d is not cleaned: %s", request.request_id, error.description)
                return


def _whole(received: Received, size: int, before: int) -> bool:
    """Whether a part without a last line feed is all there is: as long as announced, or as before."""
    long = max(received.text, received.wire)
    return size in (received.text, received.wire) or (received.text == before and long >= size)


class _Gone(Exception):
    """The files of a log request are not there any more."""
