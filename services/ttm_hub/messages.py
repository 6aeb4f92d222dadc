"""Messages as typed objects. `params` and `data` stay the bytes they came as."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import msgspec

from resources.ttm.protocol import CONNECTOR, ID, NONCE, TOKEN, TtmError, valid_id

Id = Annotated[str, msgspec.Meta(pattern=ID)]
Attempt = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
NULL = msgspec.Raw(b"null")


class In(msgspec.Struct, tag_field="type"):
    """Unknown keys are ignored; a missing or wrong one is an error that names it."""


class Hello(In, tag="hello"):
    v: list[int]
    role: str
    token: Annotated[str, msgspec.Meta(pattern=TOKEN)]
    instance: Id
    nonce: Annotated[str, msgspec.Meta(pattern=NONCE)]
    client: Annotated[str, msgspec.Meta(max_length=200)] = ""
    methods: list[str] = []
    capacity: Annotated[int, msgspec.Meta(ge=1)] = 1


class Auth(In, tag="auth"):
    mac: Annotated[str, msgspec.Meta(max_length=200)]


class Heartbeat(In, tag="heartbeat"):
    seq: Count
    upstream: Annotated[str, msgspec.Meta(pattern=r"^(ok|auth_failed|unreachable|unknown)\Z")]
    inflight: Count = 0
    capacity: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Ack(In, tag="ack"):
    id: Id
    attempt: Attempt


class Failure(msgspec.Struct, frozen=True):
    """The `error` of a result and of a response."""

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    message: str = ""
    retryable: bool | None = None

    @property
    def again(self) -> bool:
        """Whether another attempt may help: as it says, else as its code does."""
        return TtmError(self.code, "").retryable if self.retryable is None else self.retryable


class Result(In, tag="result"):
    id: Id
    attempt: Attempt
    ok: bool
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    data: msgspec.Raw = NULL
    error: Failure | None = None


class Drain(In, tag="drain"):
    pass


class Request(In, tag="request"):
    id: Id
    method: Annotated[str, msgspec.Meta(max_length=64)]
    params: msgspec.Raw = msgspec.Raw(b"{}")
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1)] = 3


class Cancel(In, tag="cancel"):
    id: Id


class Status(In, tag="status"):
    pass


FromConnector = Heartbeat | Ack | Result | Drain
FromRequester = Request | Cancel | Status
_hello: msgspec.json.Decoder[Hello] = msgspec.json.Decoder(Hello)
_auth: msgspec.json.Decoder[Auth] = msgspec.json.Decoder(Auth)
_connector: msgspec.json.Decoder[FromConnector] = msgspec.json.Decoder(FromConnector)
_requester: msgspec.json.Decoder[FromRequester] = msgspec.json.Decoder(FromRequester)
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadMessage(TtmError):
    """A message that cannot be understood; `ref` is its id where it has one."""

    def __init__(self, code: str, message: str, ref: str | None = None) -> None:
        super().__init__(code, message)
        self.ref = ref


def hello(message: str | bytes) -> Hello:
    return _decode(_hello, message)


def auth(message: str | bytes) -> Auth:
    return _decode(_auth, message)


def from_peer(role: str, message: str | bytes) -> FromConnector | FromRequester:
    """What a connector or a requester says once it is known. Raises BadMessage."""
    return _decode(_connector, message) if role == CONNECTOR else _decode(_requester, message)


def _decode(decoder: msgspec.json.Decoder[Any], message: str | bytes) -> Any:
    if isinstance(message, bytes):
        raise BadMessage("bad_request", "Frames are text, this one is binary.")
    try:
        return decoder.decode(message)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = str(error)
    return _decode_leniently(decoder, message, reason)


def _decode_leniently(decoder: msgspec.json.Decoder[Any], message: str, reason: str) -> Any:
    """Half of a surrogate pair is replaced, one such text must not cost a ticket; the rest is refused."""
    try:
        found = json.loads(message, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadMessage("bad_request", f"The message is not JSON: {reason}.") from None
    if not isinstance(found, dict):
        raise BadMessage("bad_request", "A message is a JSON object.")
    ref = found["id"] if valid_id(found.get("id")) else None
    if "\\u" in message:
        text = _SURROGATE.sub("\ufffd", json.dumps(found, ensure_ascii=False))
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            reason = str(error)
    kind = found.get("type")
    if isinstance(kind, str) and "$.type" in reason:
        raise BadMessage("unknown_type", f"There is no message {kind[:40]!r} here.", ref)
    raise BadMessage("bad_request", f"{str(kind)[:40]}: {reason}.", ref)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# what the hub says


class Out(msgspec.Struct, tag_field="type"):
    def encode(self) -> bytes:
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()


class Challenge(Out, tag="challenge"):
    conn: str
    nonce: str
    expires_in: float
    v: int = 1
    alg: str = "hmac-sha256"


class Welcome(Out, tag="welcome"):
    conn: str
    mac: str
    hub: str
    time: str
    limits: dict[str, float]


class HeartbeatAck(Out, tag="heartbeat_ack"):
    seq: int
    time: str


class Accepted(Out, tag="accepted"):
    id: str
    queued: int


class Task(Out, tag="task"):
    id: str
    attempt: int
    method: str
    params: msgspec.Raw
    timeout: float


class ResultAck(Out, tag="result_ack"):
    id: str
    attempt: int
    duplicate: bool


class CancelTask(Out, tag="cancel"):
    id: str


class Answer(Out, tag="response"):
    """The `response` to a request that succeeded."""

    id: str
    ok: bool
    status: int
    data: msgspec.Raw
    connector: str
    attempts: int
    elapsed_ms: int


class Refusal(Out, tag="response", omit_defaults=True):
    """The `response` to a request that failed."""

    id: str
    ok: bool
    status: int
    error: Failure
    attempts: int
    elapsed_ms: int
    connector: str | None = None


class Error(Out, tag="error"):
    """What was not accepted at all: `ref` is the id of the request, None when it has none."""

    code: str
    message: str
    ref: str | None
    retryable: bool


class Busy(Error, tag="error"):
    retry_after: float


class ConnectorStatus(msgspec.Struct):
    instance: str
    inflight: int
    capacity: int
    upstream: str
    connected_at: str
    done: int
    lost: int


class StatusReply(Out, tag="status_reply"):
    queued: int
    connectors: list[ConnectorStatus]


def error(code: str, message: str, ref: str | None = None) -> bytes:
    text = _SURROGATE.sub("\ufffd", message[:500])
    return Error(code, text, ref, TtmError(code, "").retryable).encode()
