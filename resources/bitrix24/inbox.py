"""Events that the portal has sent, on the disk until they are worked on; processes of a host share it."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NEW, TAKEN = "bitrix24-events.jsonl", "bitrix24-events.taken.jsonl"


class Inbox:
    """Appends are on the disk when `put` returns; what is taken stays until `done`."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory
        self._new, self._taken = directory / NEW, directory / TAKEN

    def put(self, event: Mapping[str, Any]) -> None:
        """Keep one event. It begins a line of its own, whatever a full disk left before it."""
        with self._locked(), self._new.open("ab") as file:
            file.write(b"\n" + json.dumps(event).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def waiting(self) -> bool:
        """Whether there is anything to work on."""
        return any(p.exists() and p.stat().st_size > 0 for p in (self._new, self._taken))

    def take(self) -> list[dict[str, Any]]:
        """All events, those of an earlier `take` without `done` too."""
        with self._locked():
            if self._new.exists():
                with self._taken.open("ab") as file:
                    file.write(b"\n" + self._new.read_bytes())
                    file.flush()
                    os.fsync(file.fileno())
                self._new.unlink()
        text = self._taken.read_bytes() if self._taken.exists() else b""
        return [event for line in text.splitlines() if (event := _read(line))]

    def done(self) -> None:
        """Forget what was taken."""
        self._taken.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "bitrix24-events.lock", os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            yield


def _read(line: bytes) -> dict[str, Any] | None:
    """An event; None for a line that a power cut left half written, which was never answered."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
