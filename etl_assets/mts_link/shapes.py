"""Records that hold rows of several things, cut into rows. Pure functions of one record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

Row = dict[str, Any]


def _list(value: Any) -> list[Row]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def fingerprint(record: Any) -> str:
    """The key of what has no id: records that are equal are one."""
    return hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def user_sessions(user: Mapping[str, Any]) -> Iterator[Row]:
    """One row a person and session of `/stats/users`; one without a session for a person who has none.

    Guests may come without an id: their address stands for it, else all that is told of them.
    """
    person = {k: v for k, v in user.items() if k != "eventSessions"}
    key = {} if user.get("id") else {"person_key": fingerprint(person.get("email") or person)}
    for session in _list(user.get("eventSessions")) or [{}]:
        yield {**person, **key, "session": session, "event_session_id": session.get("id", "")}


VISIT_STATES = ("registered", "not_visited", "visited")


def visits(answer: Mapping[str, Any]) -> Iterator[Row]:
    """One row a state and session of `/stats/users/visits`; states that are new get rows too."""
    for state, sessions in answer.items():
        for session in _list(sessions):
            yield {**session, "visit_state": state, "event_session_id": session.get("id")}


def passings(run: Mapping[str, Any]) -> Iterator[Row]:
    """One row a test run and person of `/tests/{id}/results`; one without a person for a run of nobody."""
    outer = {k: v for k, v in run.items() if k != "users"}
    for user in _list(run.get("users")) or [{}]:
        person = user.get("userId") or user.get("id") or (fingerprint(user) if user else "")
        yield {**outer, "passing": user, "passing_user_id": person}


def user_passings(test: Mapping[str, Any]) -> Iterator[Row]:
    """One row a test and run of `/users/{id}/tests/stats`."""
    for run in _list(test.get("testPassings")):
        yield {"testId": test.get("testId"), **run}


def students(row: Mapping[str, Any]) -> Iterator[Row]:
    """Course statistics with the student's id beside it, which is the key."""
    student = row.get("student")
    yield {**row, "student_key": student.get("id") if isinstance(student, dict) else row.get("id")}


def streams(row: Mapping[str, Any]) -> Iterator[Row]:
    """Stream addresses with the session that they are of under the name of the parent's key."""
    yield {**row, "event_session_id": row.get("eventSessionId") or row.get("id") or ""}


def event_sessions(event: Mapping[str, Any]) -> Iterator[Row]:
    """Sessions of one item of a schedule, each with the id of its event."""
    for session in _list(event.get("eventSessions")):
        yield {"eventId": event.get("id"), **session}
