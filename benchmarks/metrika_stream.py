"""How much memory and time do ten million hits need, from the socket to their table?

A server of its own makes the log as it is asked for, in gzip parts of a million lines; another process loads
it through the asset's code into the embedded ClickHouse, which is part of that process.

    python -m benchmarks.metrika_stream [--hits 10000000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.common import ROOT, folder, verdict
from etl_assets.metrika.fields import HITS
from etl_assets.metrika.loading import LogLoader
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.metrika import MetrikaClient

HITS_IN_ALL, A_TENTH = 10_000_000, 10
LINES_OF_A_PART, LINES_OF_A_BLOCK = 1_000_000, 20_000
MEMORY_MB, LINEAR = 2000, 1.3
COUNTER, DAY = 7, date(2026, 10, 7)
_FIRST_ID = 6_500_000_000_000_000_000
_SAMPLE = {
    "counterID": str(COUNTER),
    "date": str(DAY),
    "dateTime": f"{DAY} 12:34:56",
    "title": "Кружка «Утро», 350 мл",
    "URL": "https://shop.example/catalog/item-204?color=red&from=main",
    "referer": "https://shop.example/catalog",
    "goalsID": "[310000001]",
    "parsedParamsKey1": "[]",
    "parsedParamsKey2": "[]",
    "deviceCategory": "1",
    "browser": "chrome",
    "operatingSystem": "windows11",
    "regionCity": "Москва",
}


def part(fields: Sequence[str], first: int, lines: int) -> Iterator[bytes]:
    """The gzip stream of a part: each line has an id of its own."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    yield packer.compress(("\t".join(fields) + "\n").encode())
    values = [_SAMPLE.get(name.removeprefix("ym:pv:"), "0") for name in fields]
    tail = "\t".join(values[1:]) + "\n"  # the first field is the id
    for begin in range(first, first + lines, LINES_OF_A_BLOCK):
        end = min(begin + LINES_OF_A_BLOCK, first + lines)
        block = "".join([f"{_FIRST_ID + n * 3}\t{tail}" for n in range(begin, end)])
        yield packer.compress(block.encode())
    yield packer.flush()


class Source(BaseHTTPRequestHandler):
    """As much of the Logs API as a load of one day asks for."""

    protocol_version = "HTTP/1.1"
    hits = 0
    fields: tuple[str, ...] = ()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path.endswith("/download"):
            return self._part(int(split.path.split("/")[-2]))
        if "fields" in query:
            Source.fields = tuple(query["fields"].split(","))
        if split.path.endswith("/evaluate"):
            return self._json({"log_request_evaluation": {"possible": True}})
        if split.path.endswith("/logrequests") and self.command == "GET":
            return self._json({"requests": []})
        if "/logrequest" not in split.path:
            return self._json({"counter": {"id": COUNTER, "time_zone_name": "Europe/Moscow"}})
        parts = [{"part_number": n, "size": 0} for n in range(-(-self.hits // LINES_OF_A_PART))]
        request = {"request_id": 1, "status": "processed", "parts": parts, "fields": self.fields}
        return self._json({"log_request": request})

    def _part(self, number: int) -> None:
        first = number * LINES_OF_A_PART
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in part(self.fields, first, min(LINES_OF_A_PART, self.hits - first)):
            if chunk:
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def serve(hits: int) -> None:
    """Answer until standard input is closed; prints the address."""
    Source.hits = hits
    server = ThreadingHTTPServer(("127.0.0.1", 0), Source)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


@contextmanager
def source(hits: int) -> Iterator[str]:
    """The server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "benchmarks.metrika_stream", "--serve", str(hits)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)


def load(url: str, path: Path) -> dict[str, float]:
    """Load the day; rows, seconds, also of the processor, and the peak of this process's memory."""
    warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
    client = MetrikaClient(url, "benchmark", state_dir=path, per_second=0)
    loader = LogLoader(client, warehouse, "Europe/Moscow", "metrika/hits", poll_s=0.01)
    began, worked = time.perf_counter(), time.process_time()
    done = loader.load(HITS, COUNTER, [DAY])
    seconds, processor_s = time.perf_counter() - began, time.process_time() - worked
    rows, places = warehouse.query("SELECT count(), sum(row_number) FROM metrika.hits FINAL")[0]
    Embedded.at(f"{path}/warehouse").close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = done.downloaded.text / 1e6
    told = {"rows": int(rows), "places": int(places), "seconds": seconds, "processor_s": processor_s}
    return {**told, "peak_mb": peak, "text_mb": text}


def measured(hits: int) -> dict[str, float]:
    """One load in a process of its own."""
    with folder() as path, source(hits) as url:
        command = [sys.executable, "-m", "benchmarks.metrika_stream", "--load", url, str(path)]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(answer.stdout.splitlines()[-1])
    print(f"     {hits:,} hits: {json.dumps(result)}")
    return result


def main() -> int:
    """Exit status 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hits", type=int, default=HITS_IN_ALL)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    if options.load:
        print(json.dumps(load(options.load[0], Path(options.load[1]))))
        return 0
    few, many = measured(options.hits // A_TENTH), measured(options.hits)
    met = verdict("share of the rows", many["rows"] / options.hits, 1, at_most=False)
    places = options.hits * (options.hits - 1) // 2  # each line has one of its own, from zero on
    met &= verdict("sum of the places", many["places"] / places, 1, at_most=False)
    met &= verdict("peak memory of the loading process", many["peak_mb"], MEMORY_MB, at_most=True, unit=" MB")
    growth = many["seconds"] / few["seconds"] / A_TENTH
    met &= verdict("time of ten times as many, over ten", growth, LINEAR, at_most=True)
    return not met


if __name__ == "__main__":
    sys.exit(main())
