"""All trunks of a cabinet: the list page by page, then a form for each; complete, or an error that names
what is missing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import Clock, register_secret
from resources.mts_vats import payloads
from resources.mts_vats.answers import Abonent, AbonentPage, DeviceForm, full_phone
from resources.mts_vats.discovery import BROWSER_ENDPOINT, DISPATCHER_ENDPOINT, Protocol
from resources.mts_vats.gwt_lexer import Response
from resources.mts_vats.gwt_rpc import DecodeError
from resources.mts_vats.parse import parse_form, parse_form_32, parse_list
from resources.mts_vats.payloads import FILTERS, Filter, ScopeSlot
from resources.mts_vats.session import (
    BadAnswer,
    Cabinet,
    Counters,
    ProtocolDrift,
    RemoteError,
    Session,
    what_was_seen,
)

PAGE = 100  # the largest page that the cabinet's own page asks for
MOST_PAGES = 1000
LIST_PASSES = 3
MOST_BROKEN_IN_A_ROW = 10
PROBED = 25  # abonents that are tried when the enum of forms has changed
REDEPLOYS = 3
NEIGHBOURS = 3  # constants to either side of the old one that are tried for each
Parsed = TypeVar("Parsed")
Status = Literal["ok", "no_form", "no_credentials", "error"]


@dataclass(frozen=True, slots=True)
class Trunk:
    """An abonent with what its form says. `error` is why there is no form that could be read."""

    abonent: Abonent
    form: DeviceForm | None
    status: Status
    read_at: datetime
    error: str | None = None

    @property
    def phone(self) -> str | None:
        """Of the form, else of the list: eleven digits that begin with 7."""
        return (self.form.phone if self.form else None) or full_phone(self.abonent.phone)


class NoForm(RemoteError):
    """The cabinet has neither form for an abonent; the text is what it said of the device form."""


class IncompleteError(PermanentSourceError):
    """Some trunks could not be read. `missing` maps their abonent ids to why."""

    def __init__(self, cabinet: str, missing: dict[int, str], total: int, stopped: bool = False) -> None:
        shown = "; ".join(f"{id_} ({why.rstrip('.')})" for id_, why in list(missing.items())[:20])
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        said = f"{len(missing)} of {total} trunks could not be read: {shown}{more}"
        if stopped:
            said = f"stopped after {MOST_BROKEN_IN_A_ROW} failures in a row; {said}"
        super().__init__(f"Cabinet {cabinet}: {said}.")
        self.missing = missing


class MtsVatsClient:
    """One cabinet, read through the calls of its own page.

    `filters` are the list's fields f0 to f3, null, false or true each. `secrets=False` forgets SIP passwords
    as soon as an answer is parsed.
    """

    def __init__(
        self,
        cabinet: Cabinet,
        *,
        concurrency: int = 1,
        page_size: int = PAGE,
        filters: tuple[Filter, ...] = FILTERS,
        secrets: bool = False,
        clock: Clock = time,
    ) -> None:
        if len(filters) != 4:
            raise PermanentSourceError("The list has four filters, f0 to f3.")
        self.cabinet = cabinet
        self.session = Session(cabinet, concurrency=concurrency, clock=clock)
        self._concurrency = concurrency
        self._page_size = page_size
        self._filters = filters
        self._secrets = secrets
        self._slot: ScopeSlot = 5
        self._settled = False
        self._probing = threading.Lock()
        self._probes = 0

    @property
    def counters(self) -> Counters:
        return self.session.counters

    def close(self) -> None:
        self.session.close()

    # The list

    def abonents(self) -> list[Abonent]:
        """All abonents in server order. Raises TransientSourceError if the list never stood still."""
        said = ""
        for _ in range(LIST_PASSES):
            found, said = self._list_once()
            if not said:
                return found
        raise TransientSourceError(
            f"Cabinet {self.cabinet.name}: the list was not whole in any of {LIST_PASSES} readings; {said}."
        )

    def _list_once(self) -> tuple[list[Abonent], str]:
        """(abonents, what shows that rows moved between pages or are missing; empty if nothing does)."""
        found: dict[int, Abonent] = {}
        listed, total, said = 0, None, ""
        for number in range(MOST_PAGES):
            page = self._page(number, past_end=number > 0 and total is None and listed % self._page_size > 0)
            new = {a.id: a for a in page.abonents if a.id not in found} if page else {}
            if page is None or (not new and total is None and number):
                return list(found.values()), said  # nothing more, or the last page over again
            if number and page.total != total:
                said = f"its total changed from {total} to {page.total}"
            if len(new) < len(page.abonents):
                said = f"page {number} repeats rows of others"
            found |= new
            listed, total = listed + len(page.abonents), page.total
            if total is not None and (len(found) >= total or not page.abonents):
                if len(found) != total:
                    said = f"it says {total} and lists {len(found)}"
                return list(found.values()), said
        raise PermanentSourceError(
            f"Cabinet {self.cabinet.name}: the list has more than {MOST_PAGES} pages of {self._page_size}."
        )

    def _page(self, number: int, *, past_end: bool) -> AbonentPage | None:
        """A page of the list; None where the cabinet refuses one that may be behind the last."""
        if number or self._settled:
            return self._ask_page(number, self._slot, refusable=past_end)
        page = self._ask_page(0, 5, refusable=True)
        if page is None or not page.abonents:
            page = self._other_slot(page)
        self._settled = True
        return page

    def _other_slot(self, first: AbonentPage | None) -> AbonentPage:
        """The first page with the scope in the other field of the request, as another version sent it."""
        other = self._ask_page(0, 6, refusable=first is not None)
        if other is None or (first is not None and not other.abonents):
            assert first is not None
            return first
        self._slot = 6
        return other

    def _ask_page(self, number: int, slot: ScopeSlot, *, refusable: bool) -> AbonentPage | None:
        doing, scope, size = f"page {number} of the list", self._scope(), self._page_size

        def body(protocol: Protocol) -> bytes:
            return payloads.list_page(protocol, self.session.base, scope, number, size, slot, self._filters)

        try:
            response = self.session.call(doing, BROWSER_ENDPOINT, body)
        except RemoteError:
            if refusable:
                return None
            raise
        page = self._decoded(doing, response, parse_list)
        if len(page.abonents) > size:
            said = f"{len(page.abonents)} rows on a page of {size}"
            raise PermanentSourceError(f"Cabinet {self.cabinet.name}, {doing}: {said}.")
        return page

    def _scope(self) -> int:
        if self.session.enterprise is None and not self.counters.logins:
            self.session.log_in()
        if self.session.enterprise is None:
            raise PermanentSourceError(
                f"Cabinet {self.cabinet.name}: the page after login does not show the enterprise's id; "
                "set it as the cabinet's scope."
            )
        return self.session.enterprise

    def _decoded(self, doing: str, response: Response, parse: Callable[[Response], Parsed]) -> Parsed:
        try:
            return parse(response)
        except DecodeError as error:
            raise BadAnswer(
                f"Cabinet {self.cabinet.name}, {doing}: {error}. The answer has {what_was_seen(response)}. "
                "If the shapes of the cabinet have changed, see docs/mts_vats.md."
            ) from None

    # Forms

    def trunk(self, abonent: Abonent) -> Trunk:
        """One trunk; a form that cannot be read is its status, not an error."""
        try:
            form = self.form(abonent.id)
        except NoForm as refusal:
            return Trunk(abonent, None, "no_form", self.session.now(), refusal.description)
        except (BadAnswer, RemoteError, TransientSourceError) as failure:
            return Trunk(abonent, None, "error", self.session.now(), failure.description)
        return Trunk(abonent, form, "ok" if form.login else "no_credentials", self.session.now())

    def form(self, abonent: int) -> DeviceForm:
        """Form 31, or form 32 where there is none. Raises NoForm, BadAnswer, RemoteError."""
        for _ in range(REDEPLOYS):
            self._find_forms(abonent)
            spoken = self.session.protocol
            try:
                return self._secret(self._either_form(abonent))
            except (RemoteError, BadAnswer):
                if self.session.protocol is spoken:
                    raise
        raise ProtocolDrift(f"Cabinet {self.cabinet.name}: it was redeployed {REDEPLOYS} times in a minute.")

    def _either_form(self, abonent: int) -> DeviceForm:
        try:
            return self._form(abonent, 0, lambda r: parse_form(r, abonent))
        except RemoteError as refusal:
            try:
                return self._form(abonent, 1, parse_form_32)
            except RemoteError:
                raise NoForm(f"{refusal.description}", refusal.thrown) from None

    def _secret(self, form: DeviceForm) -> DeviceForm:
        if not self._secrets:
            return form._replace(password=None)
        if form.password:
            register_secret(form.password)
        return form

    def _form(
        self, abonent: int, which: Literal[0, 1], parse: Callable[[Response], DeviceForm], step: int = 0
    ) -> DeviceForm:
        """The device form or the one that stands in for it; `step` constants beside the known one."""

        def body(protocol: Protocol) -> bytes:
            return payloads.get_form(protocol, self.session.base, abonent, protocol.ordinals[which] + step)

        doing = f"{('device', 'fallback')[which]} form of {abonent}"
        return self._decoded(doing, self.session.call(doing, DISPATCHER_ENDPOINT, body), parse)

    def _find_forms(self, abonent: int) -> None:
        """After a redeploy that changed the enum of forms and hid its names, try the constants near the old
        ones: the device form is the one that says it is this abonent's."""
        if self.session.protocol.ordinals_known:
            return
        with self._probing:
            protocol = self.session.protocol
            if protocol.ordinals_known:  # another thread has found them
                return
            self._probes += 1
            first, second = protocol.ordinals
            for step in sorted(range(-NEIGHBOURS, NEIGHBOURS + 1), key=lambda n: (abs(n), -n)):
                with suppress(RemoteError, BadAnswer):
                    self._form(abonent, 0, lambda r: parse_form(r, abonent), step)
                    self.session.learned_ordinals((first + step, second + step))
                    return
            if self._probes >= PROBED:
                raise ProtocolDrift(
                    f"Cabinet {self.cabinet.name}: the enum of forms has changed, and none of its constants "
                    f"{first - NEIGHBOURS} to {first + NEIGHBOURS} is the device form of {PROBED} abonents. "
                    "See docs/mts_vats.md on pins."
                )

    # Both

    def iter_trunks(self) -> Iterator[Trunk]:
        """A trunk for every abonent of the list, in its order; those that cannot be read say why.

        Raises IncompleteError after ten failures in a row, naming them and all that were not asked for.
        """
        abonents = self.abonents()
        failures: dict[int, str] = {}
        refused = 0
        for at, trunk in enumerate(self._in_order(abonents), 1):
            failures = {**failures, trunk.abonent.id: trunk.error or ""} if trunk.status == "error" else {}
            if len(failures) >= MOST_BROKEN_IN_A_ROW:
                missing = failures | {a.id: "not asked for" for a in abonents[at:]}
                raise IncompleteError(self.cabinet.name, missing, len(abonents), stopped=True)
            refused += trunk.status == "no_form"
            yield trunk
        if refused == len(abonents) >= MOST_BROKEN_IN_A_ROW:
            raise PermanentSourceError(
                f"Cabinet {self.cabinet.name}: it has a form of none of {refused} trunks. The login may lack "
                "the right to see them, or the forms have moved: see docs/mts_vats.md on pins."
            )

    def trunks(self) -> list[Trunk]:
        """All trunks. Raises IncompleteError, naming those that could not be read."""
        found = list(self.iter_trunks())
        require_complete(self.cabinet.name, found)
        return found

    def _in_order(self, abonents: Iterable[Abonent]) -> Iterator[Trunk]:
        if self._concurrency == 1:
            yield from map(self.trunk, abonents)
            return
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="mts-vats") as pool:
            futures = deque()
            for abonent in abonents:
                futures.append(pool.submit(self.trunk, abonent))
                if len(futures) > 2 * self._concurrency:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()


def require_complete(cabinet: str, trunks: Iterable[Trunk]) -> None:
    """Raise IncompleteError if the form of any of these could not be read."""
    counted = list(trunks)
    missing = {t.abonent.id: t.error or "" for t in counted if t.status == "error"}
    if missing:
        raise IncompleteError(cabinet, missing, len(counted))
