"""MTS VATS: how fast answers are decoded, and how near reading a cabinet comes to the sum of its latencies.

Targets: 20 MB/s on one core for every kind of answer; 1.1 times the latency floor at one call at a time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from resources.mts_vats import models
from resources.mts_vats.client import MtsVatsClient
from resources.mts_vats.gwt_lexer import lex
from resources.mts_vats.gwt_rpc import DecodeError, Reader
from resources.mts_vats.parse import parse_form, parse_list
from resources.mts_vats.session import Cabinet
from sandbox.mts_vats import CabinetConfig, VirtualCabinet, serve
from sandbox.mts_vats.wire import Call

TRUNKS, LATENCY_S = 1000, 0.05
DECODE_MB_S, FLOOR_RATIO = 20.0, 1.1


def answers(**settings: Any) -> tuple[bytes, bytes]:
    """(a page of 100 rows, a device form) as a cabinet of these settings writes them."""
    cabinet = VirtualCabinet(CabinetConfig(trunks=100, **settings))
    browser, dispatcher = "AbonentBrowserGwtService", "DispatcherGwtService"
    fields = [None, False, None, False, 0, cabinet.config.enterprise, None, None, 0, 100, None]
    page = Call(cabinet.policies[browser], "", "list", (), [["", fields]])
    trunk = next(t for t in cabinet.trunks.values() if t.form == 31 and t.has_device)
    form = Call(cabinet.policies[dispatcher], "", "getForm", (), [trunk.id, 31])
    return cabinet.execute(browser, page).encode(), cabinet.execute(dispatcher, form).encode()


def speed(body: bytes, decode: Callable[[bytes], object], seconds: float = 0.5) -> float:
    """MB/s of CPU time, the best of five."""
    best = 0.0
    for _ in range(5):
        began, count = time.process_time(), 0
        while time.process_time() - began < seconds / 5:
            decode(body)
            count += 1
        best = max(best, count * len(body) / (time.process_time() - began) / 1e6)
    return best


def read(body: bytes) -> object:
    return Reader(lex(body), models.RESPONSES).read()


def decoding() -> bool:
    """A line for each kind of answer."""
    page, form = answers()
    modern, _ = answers(modern=True)
    changed, _ = answers(changed_row=True)
    split, _ = answers(array_part=500, string_part=40)
    kinds: list[tuple[str, bytes, Callable[[bytes], object]]] = [
        ("page, typed reader", page, read),
        ("page, to rows", page, lambda b: parse_list(lex(b))),
        ("page of GWT 2.8, to rows", modern, lambda b: parse_list(lex(b))),
        ("page of an unknown class, by scanning", changed, lambda b: parse_list(lex(b))),
        ("page in pieces (.concat, +), tokens", split, lex),
        ("form, typed reader", form, read),
        ("form, to values", form, lambda b: parse_form(lex(b))),
    ]
    good = True
    for name, body, decode in kinds:
        try:
            found = speed(body, decode)
        except DecodeError as error:
            raise SystemExit(f"{name}: {error}") from None
        good = good and found >= DECODE_MB_S
        print(f"decode {name}: {found:.1f} MB/s, {found / DECODE_MB_S:.2f} x the target")
    return good


def cabinet() -> bool:
    """All trunks at one call at a time, against requests times latency."""
    with serve(CabinetConfig(trunks=TRUNKS, latency_s=LATENCY_S, without_form=0, fallback_form=0)) as served:
        config = served.config
        client = MtsVatsClient(Cabinet("main", served.base_url, config.login, config.password))
        began = time.perf_counter()
        count = len(client.trunks())
        took = time.perf_counter() - began
        client.close()
        floor = served.stats.requests * LATENCY_S
    ratio = took / floor
    print(
        f"{count} trunks, {served.stats.requests} requests of {LATENCY_S * 1000:.0f} ms: {took:.1f} s, "
        f"{ratio:.3f} x the floor"
    )
    return count == TRUNKS and ratio <= FLOOR_RATIO


if __name__ == "__main__":
    results = [decoding(), cabinet()]
    sys.exit(0 if all(results) else 1)
