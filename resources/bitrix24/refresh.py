"""Refreshes the tokens of an application, in a process of its own: `python refresh.py`, a request on stdin.

The authorization server replaces the refresh token the moment it answers, so an answer that is not stored
locks the integration out. Therefore this process leaves its parent before it asks: whoever kills the parent
does not kill it. It holds the lock of the store from before the request until the new pair is on the disk;
whoever waits for the lock finds the new pair and asks nothing. It is run as a file, because its package
imports Dagster.

Facts: REST documentation, OAuth 2.0 (token endpoint, rotation, error codes).
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from resources.http import HttpSession, TransportError

ATTEMPTS = 3
PAUSE_S = 1.0
NOT_SENT = ("dns", "refused", "tls", "ca")  # the server cannot have used the refresh token up
ROOM = 8192  # bytes kept free on the disk before the request: a pair that cannot be stored is lost
KEPT = ("access_token", "refresh_token", "client_endpoint", "server_endpoint", "member_id", "expires")


def seed_of(refresh_token: str) -> str:
    """What the store remembers of the token that it began with."""
    return hashlib.sha256(refresh_token.encode()).hexdigest()


def read_store(path: Path) -> dict[str, Any]:
    """The stored pair; empty if there is none."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def write_store(path: Path, tokens: Mapping[str, Any]) -> None:
    """Replace the pair for good: it is on the disk when this returns."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(tokens).encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def refreshed(request: Mapping[str, Any]) -> dict[str, str]:
    """Make sure that the store has a newer access token than `known`. {} or {"error", "description"}."""
    path = Path(request["path"])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(lock):
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        stored = read_store(path)
        if request["seed"] and stored.get("seed") != seed_of(request["seed"]):
            stored = {"refresh_token": request["seed"], "seed": seed_of(request["seed"])}
        if not request["code"] and stored.get("access_token", request["known"]) != request["known"]:
            return {}
        grant = _grant(request["code"], stored)
        if grant is None:
            return {"error": "no_token", "description": ""}
        path.with_suffix(".new").write_bytes(b" " * ROOM)
        path.with_suffix(".new").chmod(0o600)
        answer = _ask(request, grant, stored)
        if "access_token" not in answer or "refresh_token" not in answer:
            code, text = answer.get("error") or "no_tokens_in_answer", answer.get("error_description") or ""
            return {"error": str(code), "description": str(text)[:300]}
        kept = {name: answer[name] for name in KEPT if name in answer}
        write_store(path, {**stored, **kept, "seed": stored.get("seed", "")})
        return {}


def _grant(code: str, stored: Mapping[str, Any]) -> dict[str, str] | None:
    if code:
        return {"grant_type": "authorization_code", "code": code}
    token = stored.get("refresh_token")
    return {"grant_type": "refresh_token", "refresh_token": token} if token else None


def _ask(request: Mapping[str, Any], grant: Mapping[str, str], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the first authorization server that can be reached."""
    client = {"client_id": request["client_id"], "client_secret": request["client_secret"]}
    secrets = [*client.values(), *grant.values()]
    http = HttpSession(timeout_s=request["timeout_s"], verify=request["ca_bundle"] or True, secrets=secrets)
    problem = {"error": "unreachable", "error_description": "no authorization server is known"}
    for server in _servers(request["servers"], stored):
        for attempt in range(ATTEMPTS):
            try:
                answer = http.send("GET", f"{server}/oauth/token/", params={**grant, **client})
                return _object(answer.body, answer.status)
            except TransportError as error:
                problem = {
                    "error": "unreachable",
                    "error_description": f"{urlsplit(server).netloc}: {error.kind}",
                }
                if error.kind in NOT_SENT:
                    break
            except ValueError as error:
                problem = {"error": "unreachable", "error_description": str(error)}
            time.sleep(PAUSE_S * 2**attempt)
    return problem


def _servers(configured: list[str], stored: Mapping[str, Any]) -> list[str]:
    """The server that answered last, then the configured ones."""
    last = urlsplit(str(stored.get("server_endpoint") or ""))
    known = [f"{last.scheme}://{last.netloc}"] if last.scheme == "https" and last.netloc else []
    return list(dict.fromkeys([*known, *(server.rstrip("/") for server in configured)]))


def _object(body: bytes, status: int) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict) or (status >= 500 and "error" not in found):
        raise ValueError(f"HTTP {status} without a JSON object")
    return found


def main() -> NoReturn:
    """Read the request, leave the parent, refresh, answer in JSON on stdout."""
    request = json.loads(sys.stdin.read())
    if os.fork():
        os._exit(0)
    try:
        answer = refreshed(request)
    except OSError as error:
        answer = {"error": "store", "description": os.strerror(error.errno or 0)}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
