"""Decoding of requests: JSON, PHP bracket forms, multipart; lookups that follow PHP habits."""

import json
import re
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

from sandbox.bitrix24.errors import RestError

Params = dict[str, Any]

_KEY = re.compile(r"\[([^\]]*)\]")


def assign(target: Params, name: str, value: Any) -> None:
    """Store `value` under a PHP name: `filter[>ID]`, `select[]`, `cmd[c000]`."""
    bracket = name.find("[")
    if bracket <= 0 or "]" not in name:
        target[name.replace("[", "_")] = value
        return
    path = [name[:bracket], *_KEY.findall(name[bracket:])]
    node: Params = target
    for part in path[:-1]:
        child = node.get(part or str(len(node)))
        if not isinstance(child, dict):
            child = {}
            node[part or str(len(node))] = child
        node = child
    node[path[-1] or str(len(node))] = value


def parse_query(text: str) -> Params:
    """`a[b]=1&c[]=2` as nested dicts; `+` means a space, as everywhere in form encoding."""
    result: Params = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        assign(result, name, value)
    return result


def _parse_multipart(content_type: str, body: bytes) -> Params:
    header = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(header + body)
    result: Params = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            assign(result, name, payload.decode("utf-8", "replace"))
    return result


def decode_request(query: str, content_type: str, body: bytes) -> Params:
    """Parameters of a request; the body wins over the query string."""
    params = parse_query(query)
    if not body:
        return params
    kind = content_type.split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        params.update(_parse_multipart(content_type, body))
    elif kind == "application/json" or (not kind and body[:1] in b"{["):
        decoded = json.loads(body)
        if isinstance(decoded, list):
            decoded = {str(index): item for index, item in enumerate(decoded)}
        if isinstance(decoded, dict):
            params.update(decoded)
    else:
        params.update(parse_query(body.decode("utf-8", "replace")))
    return params


def lookup(params: Params, name: str, default: Any = None) -> Any:
    """A parameter in any case. With several spellings present the lower-case one wins
    (observed for user.get: an upper-case FILTER next to filter is ignored entirely)."""
    if name in params:
        return params[name]
    lowered = name.lower()
    if lowered in params:
        return params[lowered]
    for key, value in params.items():
        if key.lower() == lowered:
            return value
    return default


def as_list(value: Any) -> list[Any]:
    """A PHP array given as a list, as a map, or as a bare scalar."""
    if value is None or value == "":
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return list(value.values())
    return [value]


def as_map(value: Any, name: str) -> dict[str, Any]:
    """A map parameter; PHP clients send an empty map as a list."""
    if value is None or value == "" or value == []:
        return {}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, list):
        return {str(index): item for index, item in enumerate(value)}
    raise RestError("", f"Parameter '{name}' must be array.")


def as_int(value: Any, default: int = 0) -> int:
    """PHP `intval`: what does not look like a number is the default."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return default
