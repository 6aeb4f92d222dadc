"""The ticket system over HTTP: one login, bounded retries, and only calls that read.

Paths, bodies and answers are those of the system's own web client.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from resources.ttm.protocol import (
    MAX_MESSAGE,
    RELEASE,
    TASK,
    TICKET,
    UPSTREAM_AUTH_FAILED,
    UPSTREAM_OK,
    UPSTREAM_UNREACHABLE,
    TtmError,
)
from resources.ttm.settings import Redaction, SettingError
from services.ttm_connector.config import SystemConfig
from services.ttm_connector.login import Login

log = logging.getLogger("ttm.connector")
USER_AGENT = f"ttm-connector/{RELEASE}"
ATTEMPTS = 3
MAX_BODY = MAX_MESSAGE
MAX_PAGE_BODY = 4 * MAX_MESSAGE
MAX_REDIRECTS = 3
MAX_PAGES = 200
SIZES = {TICKET: 100, TASK: 500}
CANNOT_CONNECT = "cannot connect"
FAILED_CALLS = 3
"""So many calls in a row without an answer, and the system counts as unreachable."""

FILTER_PATH = "/nttm-user-profile/api/user-filters/{key}"
PAGE_PATH = "/nttm-web-gateway/api/{kind}/page?page={page}&size={size}&sort=id,desc"
WITH_OLA_PATH = "/nttm-web-gateway/api/ticket/with-ola/{id}"
LOGOUT_PATH = "/nttm-task-handler/api/logout"


class Reply(NamedTuple):
    """An HTTP answer, whole."""

    status: int
    body: bytes
    retry_after: str | None


class TicketSystem:
    """Reads tickets. `upstream` says how the system was when it was asked last."""

    def __init__(
        self,
        config: SystemConfig,
        redaction: Redaction | None = None,
        changed: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`changed` is called when `upstream` changes. Raises SettingError for an unusable CA file."""
        self._config, self._sleep = config, sleep
        self._http = httpx.AsyncClient(
            verify=_trust(config.ca_file),
            proxy=config.proxy,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            limits=httpx.Limits(max_connections=40, max_keepalive_connections=16),
            timeout=httpx.Timeout(config.page_s, connect=config.connect_s, pool=config.page_s),
        )
        self.login = Login(config, self._send, redaction or Redaction(), self._noticed)
        self._changed = changed
        self._failed = 0
        self._reachable: bool | None = None
        self._probe: asyncio.Task[None] | None = None

    @property
    def upstream(self) -> str:
        """`ok`, `auth_failed`, `unreachable`, or `unknown` before the first call."""
        if self._reachable is False:
            return UPSTREAM_UNREACHABLE
        return self.login.upstream

    async def close(self) -> None:
        """Log out, whatever the system says to it, and close the connections."""
        for task in (self._probe, self.login.unlocking):
            if task:
                task.cancel()
        try:
            async with asyncio.timeout(5):
                if token := self.login.token:
                    await self._send("GET", LOGOUT_PATH, headers=_bearer(token), limit_s=5)
        except (TtmError, TimeoutError):
            pass
        await self._http.aclose()

    async def saved_filter(self, key: str) -> Any:
        """The saved filter as it is answered; an unknown key is null."""
        reply = await self._call("GET", FILTER_PATH.format(key=quote(key, safe="")), self._config.ticket_s)
        return _parsed(reply) if reply.body.strip() else None

    async def page(self, kind: str, number: int, clauses: list[Any]) -> dict[str, Any]:
        """One page of tickets or tasks that satisfy the clauses."""
        path = PAGE_PATH.format(kind=kind, page=number, size=SIZES[kind])
        body = json.dumps(clauses).encode()
        try:
            found = _parsed(await self._call("POST", path, self._config.page_s, body, MAX_PAGE_BODY))
        except TtmError as error:
            if error.code == "bad_request":
                raise TtmError("bad_filter", error.message) from None
            raise
        if not isinstance(found, dict) or not isinstance(found.get("content"), list):
            raise TtmError("upstream_error", "The ticket system's page has no rows.", status=200)
        return found

    async def ticket(self, number: int) -> dict[str, Any]:
        """A ticket as received; without limits it is asked for once more, with them."""
        path = self._config.ticket_path.format(id=number)
        ticket = _object(await self._call("GET", path, self._config.ticket_s))
        if isinstance(ticket.get("ola"), dict):
            return ticket
        try:
            reply = await self._call("GET", WITH_OLA_PATH.format(id=number), self._config.ticket_s)
        except TtmError as error:
            if error.code in ("not_found", "bad_request", "forbidden"):  # this installation has no such call
                return ticket
            raise
        return _object(reply)

    # calls

    async def _call(
        self, method: str, path: str, limit_s: float, body: bytes | None = None, most: int = MAX_BODY
    ) -> Reply:
        """An answer with status 200; a token that is no longer good is renewed once. Raises TtmError."""
        token = await self.login.get()
        reply = await self._send(method, path, _bearer(token), body, limit_s, most)
        if reply.status == 401:
            token = await self.login.get(after=token)
            reply = await self._send(method, path, _bearer(token), body, limit_s, most)
        if reply.status != 200:
            raise _refusal(reply)
        return reply

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        limit_s: float = 10,
        most: int = MAX_BODY,
    ) -> Reply:
        """Any answer that is final, after at most three attempts. Raises TtmError when there is none."""
        reply: Reply | None = None
        error = TtmError("upstream_unreachable", "The ticket system was not asked.")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(limit_s):
                    reply = await self._request(method, path, headers or {}, body, most)
                self._noticed(True)
                if reply.status != 429 and reply.status < 500:
                    return reply
            except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout):
                reply, error = None, TtmError("upstream_timeout", f"No answer within {limit_s:g} s.")
            except (httpx.HTTPError, httpx.InvalidURL) as failure:
                reply, error = None, _unreachable(failure)
            if attempt < ATTEMPTS:
                await self._sleep(self._pause(attempt, reply))
        if reply:
            return reply
        self._noticed(False, at_once=CANNOT_CONNECT in error.message)
        raise error

    async def _request(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, most: int
    ) -> Reply:
        """One exchange; redirects are followed on the same host only, and for reading only."""
        url = self._config.url + path
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        for hop in range(MAX_REDIRECTS + 1):
            async with self._http.stream(method, url, headers=headers, content=body) as answer:
                target = str(answer.next_request.url) if answer.next_request else None
                if target and method == "GET" and hop < MAX_REDIRECTS and _same_host(url, target):
                    url = target
                    continue
                return Reply(answer.status_code, await _body(answer, most), answer.headers.get("retry-after"))
        raise AssertionError("the last hop returns")

    def _pause(self, attempt: int, reply: Reply | None) -> float:
        asked = retry_seconds(reply.retry_after) if reply else None
        if asked is not None:
            return min(asked, self._config.most_wait_s)
        return self._config.retry_s * 2 ** (attempt - 1) * (1 + random.random() / 2)

    # how the system is

    def _noticed(self, answered: bool | None, at_once: bool = False) -> None:
        """A call was answered, was not, or (None) the login's state has changed."""
        before = self.upstream
        if answered:
            self._failed, self._reachable = 0, True
        elif answered is False:
            self._failed += 1
            if at_once or self._failed >= FAILED_CALLS:
                self._reachable = False
                if self._probe is None or self._probe.done():
                    self._probe = asyncio.create_task(self._until_reachable())
        if self.upstream != before or answered is None:
            log.log(
                logging.INFO if self.upstream == UPSTREAM_OK else logging.WARNING,
                "the ticket system is %s",
                self.upstream,
            )
            self._changed()

    async def _until_reachable(self) -> None:
        """The hub gives no tasks while the system is away, so nothing else would find that it is back."""
        while self._reachable is False:
            await self._sleep(self._config.probe_s)
            if self.login.upstream == UPSTREAM_AUTH_FAILED:  # it has a timetable of its own
                self._reachable = None
                return
            try:
                await self.login.renew()
            except TtmError as error:
                log.info("the ticket system: %s", error.message)


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise SettingError("TTM_CA_FILE is not a readable file with certificates.") from None


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _unreachable(failure: Exception) -> TtmError:
    """Names the kind of failure; the library's text may hold an address with a password."""
    causes = [failure, failure.__cause__, failure.__context__]
    if any(isinstance(c, ssl.SSLCertVerificationError) for c in causes) or "CERTIFICATE" in str(failure):
        what = f"{CANNOT_CONNECT}, its certificate is not trusted"
    elif isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        what = CANNOT_CONNECT
    else:
        what = f"the answer broke off ({type(failure).__name__})"
    return TtmError("upstream_unreachable", f"The ticket system: {what}.")


async def _body(answer: httpx.Response, most: int) -> bytes:
    """The decoded body; TtmError `too_large` as soon as it is above `most` bytes."""
    parts, size = list[bytes](), 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > most:
            raise TtmError("too_large", f"The ticket system's answer is above {most >> 20} MiB.")
        parts.append(part)
    return b"".join(parts)


def _refusal(reply: Reply) -> TtmError:
    """What a status other than 200 means."""
    match reply.status:
        case 400:
            return TtmError("bad_request", "The ticket system refused the request as malformed.")
        case 401:
            return TtmError("upstream_auth", "The ticket system refused a fresh login.")
        case 403:
            return TtmError("forbidden", "The ticket system's user has no right to this.")
        case 404:
            return TtmError("not_found", "The ticket system has no such ticket.")
    retryable = reply.status == 429 or reply.status >= 500
    return TtmError(
        "upstream_error",
        f"The ticket system answered {reply.status}.",
        retryable=retryable,
        status=reply.status,
    )


def _parsed(reply: Reply) -> Any:
    """The body as JSON; what is none, an HTML page with status 200 say, is an error of the system."""
    try:
        return json.loads(reply.body, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise TtmError(
            "upstream_error", "The ticket system's answer is not JSON.", status=reply.status
        ) from None


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(reply: Reply) -> dict[str, Any]:
    found = _parsed(reply)
    if not isinstance(found, dict):
        raise TtmError("upstream_error", "The ticket system's ticket is not an object.", status=reply.status)
    return found


def _same_host(url: str, target: str) -> bool:
    here, there = urlsplit(url), urlsplit(target)
    return (here.scheme, here.netloc) == (there.scheme, there.netloc)


def retry_seconds(text: str | None) -> float | None:
    """`Retry-After`: seconds, or a date."""
    if text is None:
        return None
    if text.isascii() and text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
