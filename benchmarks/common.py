"""What the benchmarks share: a sandbox in a process of its own, a load of deals, a line with a verdict."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running portal over TLS; `ca` is the file with the certificate to trust."""

    webhook_url: str
    ca: str

    def get(self, path: str) -> Any:
        return self._open(urllib.request.Request(self._url(path)))

    def control(self, name: str, **values: Any) -> Any:
        """What the sandbox's command line does."""
        body = json.dumps(values).encode()
        return self._open(
            urllib.request.Request(self._url(f"control/{name}"), body, {"Content-Type": "application/json"})
        )

    def _url(self, path: str) -> str:
        return f"{self.webhook_url.split('/rest/')[0]}/{path}"

    def _open(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(
            request, timeout=60, context=ssl.create_default_context(cafile=self.ca)
        ) as answer:
            return json.load(answer)


@contextmanager
def sandbox(**config: Any) -> Iterator[Sandbox]:
    """A portal with this PortalConfig in a process of its own, so that it does not share the measured
    one's core."""
    with folder() as path:
        command = [sys.executable, "-m", "benchmarks.portal", json.dumps(config), str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the sandbox did not start")
            yield Sandbox(url, str(path / "ca.pem"))
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder for a warehouse."""
    with tempfile.TemporaryDirectory(prefix="svod-bench-") as path:
        yield Path(path)


def verdict(name: str, value: float, target: float, *, at_most: bool, unit: str = "") -> bool:
    """Print one figure with its target; True if it is met."""
    met = value <= target if at_most else value >= target
    bound = f"{'at most' if at_most else 'at least'} {target:g}{unit}"
    print(f"{'ok  ' if met else 'MISS'} {name}: {value:.2f}{unit} (target {bound})", flush=True)
    return met
