"""How each kind of method is read: one reader a strategy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from etl_assets.loading import Batch, Bounds, Spent
from etl_assets.mts_link.endpoints import Endpoint, Window
from etl_assets.mts_link.marks import Mark
from etl_assets.mts_link.parents import Parent
from etl_assets.mts_link.tables import RowMaker
from resources.errors import PermanentSourceError
from resources.mts_link import Call, Exhausted, MtsLinkClient, Page, Refused

EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)  # older than anything that the third version of the API holds
LONGEST = timedelta(days=366)
SHORTEST = timedelta(days=1)
DEEPEST_FOLDER = 50
MESSAGE_LOOKBACK = timedelta(days=1)  # edits, and messages that came late
EVENT_CHAT_LIMIT = 10_000
NEEDS_FILTER = "The server wants a filter: name one in MTS_LINK_CONTACTS_FILTER."

Log = Callable[[str], None]


class Unreadable(Exception):
    """There is nothing that could be read here, and the user should know why; the text says it."""


class MtsLinkReader:
    """What all readers share: the client, the row maker, the cost."""

    def __init__(self, endpoint: Endpoint, client: MtsLinkClient, maker: RowMaker, log: Log) -> None:
        self.endpoint, self.client, self.maker, self.log = endpoint, client, maker, log
        self.first_read: datetime | None = None
        self._before = client.stats.snapshot()

    def clock(self) -> datetime:
        return self.client.now()

    def spent(self) -> Spent:
        used = self.client.stats.since(self._before)
        return Spent(used.requests, used.requests, used.waited_s, used.api_s)

    def _batch(self, page: Page) -> Batch:
        at = self.maker.read_at(page.read_at)
        self.first_read = min(self.first_read or at, at)
        return self.maker.batch(page.items, page.read_at)

    def _refused(self, refused: Refused) -> PermanentSourceError:
        return refusal(self.endpoint, refused)


class ListReader(MtsLinkReader):
    """A list that is read whole."""

    def __init__(self, *args: object, extra: Mapping[str, str] | None = None) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._extra = extra or {}

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        endpoint = self.endpoint
        call = Call(endpoint.path, {**endpoint.query, **self._extra}, endpoint.paging, endpoint.whole)
        try:
            for page in self.client.pages(call):
                yield self._batch(page)
        except Refused as refused:
            if refused.status == 400 and endpoint.name == "contacts_search" and not self._extra:
                raise Unreadable(NEEDS_FILTER) from None
            if not _nothing(endpoint, refused):
                raise self._refused(refused) from None
            self.log(f"{endpoint.name}: {refused.status}, so there is nothing")


class FolderReader(MtsLinkReader):
    """Files and folders, level by level: a list without a parent gives the first level only."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        seen: set[str] = set()
        level = [""]
        for _ in range(DEEPEST_FOLDER):
            found: list[str] = []
            for page in self._level(level):
                found += [f["id"] for f in self.maker.rows(page.items) if f["type"] == "folder"]
                yield self._batch(page)
            level = [f for f in dict.fromkeys(found) if f not in seen]  # a folder inside itself is no news
            seen.update(level)
            if not level:
                return
        self.log(f"Folders are nested deeper than {DEEPEST_FOLDER}: the deepest were not opened")

    def _level(self, folders: list[str]) -> Iterator[Page]:
        for folder, found in self.client.crowd(folders, self._open):
            if isinstance(found, Page):
                yield found
            elif isinstance(found.error, Refused) and folder and found.error.status in (403, 404):
                self.log(f"A folder could not be opened: {found.error.status}")  # it went away meanwhile
            elif isinstance(found.error, Refused):
                raise self._refused(found.error)
            elif found.error is not None:
                raise found.error

    def _open(self, folder: str, stop: threading.Event) -> Iterator[Page]:
        return self.client.pages(Call(self.endpoint.path, {"parent": folder} if folder else {}), stop)


class WindowReader(MtsLinkReader):
    """A list of a period; a long one is cut where answers are not paged."""

    def __init__(self, *args: object, zone: ZoneInfo) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        assert self.endpoint.window is not None
        self._window = self.endpoint.window
        self._zone = zone

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        ahead = timedelta(days=self._window.ahead_days)
        since, until = bounds.since or EARLIEST, bounds.until or self.clock() + ahead
        for page in self.pages(since, until):
            yield self._batch(page)

    def pages(self, since: datetime, until: datetime) -> Iterator[Page]:
        """Months of what is there; years of what is not."""
        usual = timedelta(days=self._window.step_days or 0)
        step = usual
        while since < until:
            end = min(since + step, until) if step else until
            rows = 0
            for page in self._period(since, end):
                rows += len(page.items)
                yield page
            step = usual if rows else min(2 * step, LONGEST)
            since = end

    def _period(self, since: datetime, until: datetime) -> Iterator[Page]:
        """One period; in halves, if the server cannot give it or does not take so long a one."""
        query = {**self.endpoint.query, **period(self._window, since, until, self._zone)}
        try:
            yield from self.client.pages(Call(self.endpoint.path, query, self.endpoint.paging))
        except Refused as refused:
            if refused.status == 400 and until - since > LONGEST:
                yield from self._halves(since, until)
            elif not _nothing(self.endpoint, refused):
                raise self._refused(refused) from None
        except Exhausted:
            if not self._window.step_days or until - since <= SHORTEST:
                raise
            self.log(f"{self.endpoint.name}: no answer for {(until - since).days} days, asking for half")
            yield from self._halves(since, until)

    def _halves(self, since: datetime, until: datetime) -> Iterator[Page]:
        middle = since + (until - since) / 2
        yield from self._period(since, middle)
        yield from self._period(middle, until)


def period(window: Window, since: datetime, until: datetime, zone: ZoneInfo) -> dict[str, str]:
    """The parameters of a period. An upper bound may be taken in or not, so nothing hangs on that."""
    form = {"local": "%Y-%m-%d %H:%M:%S", "day": "%Y-%m-%d", "course_day": "%d-%m-%Y"}.get(window.form)

    def text(at: datetime) -> str:
        local = at.astimezone(zone)
        return local.strftime(form) if form else local.isoformat(timespec="seconds")

    return {name: text(at) for name, at in ((window.since, since), (window.until, until)) if name}


def refusal(endpoint: Endpoint, refused: Refused) -> PermanentSourceError:
    """What the user must do about a method that is refused as a whole."""
    reason = f" The server's reason: {refused.message}" if refused.message else ""
    if refused.status == 403:
        text = f"MTS Link refuses {endpoint.name} to this key: give the key the scope for it."
    elif refused.no_route:
        text = f"MTS Link has no method {endpoint.path}: check MTS_LINK_URL."
    else:
        text = f"MTS Link refuses {endpoint.name} with {refused.status}."
    return PermanentSourceError(text + reason)


def _nothing(endpoint: Endpoint, refused: Refused) -> bool:
    """Whether a refusal means that there are no rows. Raises Unreadable where there is no such method."""
    if refused.no_route and endpoint.optional:
        raise Unreadable(f"This server has no method {endpoint.path}.")
    return refused.status in endpoint.absent


# What is asked for a parent


class Asker:
    """Questions of fan-outs, one a parent."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: MtsLinkClient,
        zone: ZoneInfo,
        marks: Mapping[str, Mark],
        message_pages: int,
        log: Log,
    ) -> None:
        self._endpoint, self._client, self._zone = endpoint, client, zone
        self._message_pages, self._log = message_pages, log
        self.marks = marks
        self.viewers: Mapping[str, list[str]] = {}
        self.emails: Mapping[str, str] = {}
        self.since = EARLIEST
        self.news_only: set[str] = set()  # chats without the look-back and the threads

    def __call__(self, job: tuple[Parent, ...], stop: threading.Event) -> Iterator[Page]:
        parent = job[0]
        if self._endpoint.strategy == "messages":
            return self._messages(parent, stop)
        if self._endpoint.name == "event_chat_messages":
            return self._event_chat(parent, stop)
        if self._endpoint.together > 1:
            return self._client.pages(self._together(job), stop)
        return self._client.pages(self.call(parent), stop)

    def _together(self, job: tuple[Parent, ...]) -> Call:
        """One question for several parents, which are values of a query parameter."""
        name = self._endpoint.together_as
        query = {f"{name}[{i}]": parent.values[-1] for i, parent in enumerate(job)}
        return Call(self._endpoint.path, {**self._endpoint.query, **query})

    def call(self, parent: Parent) -> Call:
        """The question for one parent."""
        endpoint, path = self._endpoint, self._endpoint.path
        for name, value in zip(endpoint.placeholders, parent.values, strict=False):
            path = path.replace(f"{{{name}}}", value)
        query = dict(endpoint.query)
        if endpoint.window:
            ahead = timedelta(days=endpoint.window.ahead_days)
            query |= period(endpoint.window, self.since, self._client.now() + ahead, self._zone)
        if endpoint.parent == "visitors":
            query["email"] = self.emails.get(parent.key, "")
        return Call(path, query, endpoint.paging, endpoint.whole)

    def _event_chat(self, parent: Parent, stop: threading.Event) -> Iterator[Page]:
        """The whole chat: only the newest hundred come without a limit, and there are no pages."""
        for page in self._client.pages(self.call(parent), stop):
            if len(page.items) >= EVENT_CHAT_LIMIT:
                self._log(
                    f"An event's chat has {EVENT_CHAT_LIMIT} messages or more: older ones cannot be read"
                )
            yield page

    def _messages(self, parent: Parent, stop: threading.Event) -> Iterator[Page]:
        """New messages of a chat, as one of its members; another member where one does not see it."""
        mark = self.marks.get(parent.key)
        since = None
        if mark and mark.cursor:
            back = timedelta(0) if parent.key in self.news_only else MESSAGE_LOOKBACK
            since = int(mark.cursor) - int(back.total_seconds() * 1000)
        path = self._endpoint.path.replace("{chatId}", parent.key)
        viewers = self.viewers.get(parent.key) or [""]
        for viewer in viewers:
            try:
                for page in self._client.messages(path, viewer, since, self._message_pages, stop):
                    yield page
                    if parent.key not in self.news_only:
                        yield from self._threads(path, viewer, page, stop)
                return
            except Refused as refused:
                if refused.status not in (403, 404) or viewer == viewers[-1]:
                    raise

    def _threads(self, path: str, viewer: str, page: Page, stop: threading.Event) -> Iterator[Page]:
        """Answers to messages that say that they have some."""
        for message in page.items:
            if has_thread(message):
                thread = str(message.get("id") or message.get("messageId"))
                try:
                    yield from self._client.messages(path, viewer, None, self._message_pages, stop, thread)
                except Refused as refused:  # the message went away, or this server has no threads
                    self._log(f"Answers to a message of a chat cannot be read: {refused.status}")


def has_thread(message: Mapping[str, object]) -> bool:
    """Whether a message has answers; the field is documented nowhere, so any count of them is taken."""
    for name, value in message.items():
        known = name.lower().startswith(("thread", "repl", "answer")) and not name.lower().endswith("id")
        if known and isinstance(value, int) and value > 0:
            return True
    return False
