"""Reading tickets through the hub, each for itself: what is wrong with one never stops the others."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from resources.ttm.protocol import TtmError
from resources.ttm.values import ticket_number

BATCH_TICKETS = 250
BATCH_CHARACTERS = 16_000_000  # of the tickets as JSON; a single one may have half of that

Answer: TypeAlias = tuple[int, Any]  # the number that was asked for; the ticket as received, or TtmError
Item = TypeVar("Item")


def checked(answers: Iterable[Answer]) -> Iterator[Answer]:
    """Answers; one that holds another ticket than was asked for becomes an error."""
    for asked, answer in answers:
        held = ticket_number(answer.get("id")) if isinstance(answer, dict) else None
        if held is not None and held != asked:
            answer = TtmError("upstream_error", f"The ticket system answered with ticket {held}.")
        yield asked, answer


def batches(answers: Iterable[Answer]) -> Iterator[list[Answer]]:
    """Answers in lists that fit into memory."""
    batch: list[Answer] = []
    size = 0
    for asked, answer in answers:
        batch.append((asked, answer))
        size += len(json.dumps(answer)) if isinstance(answer, dict) else 0
        if len(batch) >= BATCH_TICKETS or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The same items, each read by another thread while the caller is at work on the one before."""
    with ThreadPoolExecutor(1, "ttm-reading") as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def failed_text(failed: dict[int, str], limit: int = 5) -> str:
    """`2 of the tickets could not be read: 710012 (timeout: …), …` for the user."""
    shown = ", ".join(f"{number} ({why})" for number, why in list(failed.items())[:limit])
    more = f" and {len(failed) - limit} more" if len(failed) > limit else ""
    return f"{shown}{more}"


def failed_table(failed: dict[int, str], limit: int = 200) -> str:
    """Markdown: ticket and reason."""
    rows = [
        f"| {number} | {why.replace('|', '/').replace(chr(10), ' ')} |"
        for number, why in list(failed.items())[:limit]
    ]
    return "\n".join(["| Тикет | Почему не прочитан |", "|---|---|", *rows])
