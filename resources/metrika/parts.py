"""A log's part, from the bytes of the socket to blocks of whole lines. Nothing here looks at a value.

The format is ClickHouse's TabSeparatedWithNames: a header in every part, no quoting, and neither a tab nor a
line feed inside of a value. So the tabs of a line tell whether it is whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

GZIP = b"\x1f\x8b"
MOST_INFLATED = 8 << 20  # bytes held at once, however well they were compressed
_OTHERS = bytes(set(range(256)) - {9, 10})


class BrokenPart(Exception):
    """The part did not come as it was sent; it must be fetched again."""


@dataclass(slots=True)
class Received:
    """What came of a part: bytes on the wire, bytes of text, lines without the header."""

    wire: int = 0
    text: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, without the last line's end; `header` names their columns as they were asked for."""

    header: bytes
    lines: bytes
    count: int


def inflate(chunks: Iterable[bytes], received: Received) -> Iterator[bytes]:
    """Plain text of a body that is gzip or not, as its first two bytes say.

    A header cannot be trusted with it: some proxies undo the coding and leave the header, or drop it.
    """
    stream = _counted(chunks, received)
    start = b""
    for chunk in stream:
        start += chunk
        if len(start) >= len(GZIP):
            break
    if not start.startswith(GZIP):
        yield from _plain(start, stream, received)
        return
    for text in _members(start, stream):
        received.text += len(text)
        yield text


def _counted(chunks: Iterable[bytes], received: Received) -> Iterator[bytes]:
    for chunk in chunks:
        received.wire += len(chunk)
        yield chunk


def _plain(start: bytes, stream: Iterator[bytes], received: Received) -> Iterator[bytes]:
    received.text += len(start)
    yield start
    for chunk in stream:
        received.text += len(chunk)
        yield chunk


def _members(start: bytes, stream: Iterator[bytes]) -> Iterator[bytes]:
    """The text of one gzip member after the other. Raises BrokenPart where one ends early or is damaged."""
    inflater, data = zlib.decompressobj(31), start
    while True:
        try:
            text = inflater.decompress(data, MOST_INFLATED)
        except zlib.error:
            raise BrokenPart("its gzip stream is damaged") from None
        if text:
            yield text
        data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        if not data and not text:
            data = next(stream, b"")
            if not data:
                break
        if inflater.eof and data:
            inflater = zlib.decompressobj(31)
    if not inflater.eof:
        raise BrokenPart("its gzip stream ends early")


def blocks(
    chunks: Iterable[bytes],
    fields: Sequence[str],
    received: Received,
    whole: Callable[[], bool] = lambda: False,
) -> Iterator[Block]:
    """Blocks of whole lines. Raises BrokenPart for a missing column, and for a line that is not whole.

    `whole` is asked when the last line has no end: whether everything came all the same.
    """
    header, shape, rest = b"", b"", b""
    for chunk in chunks:
        text = rest + chunk
        end = text.rfind(b"\n") + 1
        text, rest = text[:end], text[end:]
        if not header and text:
            first, _, text = text.partition(b"\n")
            header = _header(first, fields)
            shape = b"\t" * header.count(b"\t") + b"\n"
        if text:
            yield _block(header, text, shape, received)
    if rest and not whole():
        raise BrokenPart("its last line has no end")
    if rest and header:
        yield _block(header, rest + b"\n", shape, received)
    elif not header:
        _header(rest, fields)


def _block(header: bytes, text: bytes, shape: bytes, received: Received) -> Block:
    count = text.count(b"\n")
    if text.translate(None, _OTHERS) != shape * count:
        raise BrokenPart(_misshapen(text, shape, received.lines))
    received.lines += count
    return Block(header, text[:-1], count)


def _header(line: bytes, fields: Sequence[str]) -> bytes:
    """The header in the spelling of the request, in the order of the part."""
    if not line:
        raise BrokenPart("it has no header")
    wanted = {f.lower(): f for f in fields}
    names = line.decode("utf-8", "replace").replace("<attribution>", "lastsign").split("\t")
    found = [wanted.get(name.lower(), name) for name in names]
    if missing := set(fields) - set(found):
        raise BrokenPart(f"it has no column {', '.join(sorted(missing)[:3])}")
    return "\t".join(found).encode()


def _misshapen(text: bytes, shape: bytes, before: int) -> str:
    columns, number, bad = len(shape), 0, 0
    for at, line in enumerate(text[:-1].split(b"\n"), before + 1):
        if line.count(b"\t") + 1 != columns:
            number, bad = number or at, bad + 1
    return f"{bad} of its lines do not have {columns} columns, the first of them is line {number}"
