"""An asyncio server in a background thread, for tests."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Serve = Callable[[asyncio.Event, Callable[[], None]], Coroutine[Any, Any, None]]


@contextmanager
def in_background(name: str, serve: Serve) -> Iterator[None]:
    """Run `serve(stop, ready)` until the block ends. What it raises before it is ready is raised here."""
    started, failure = threading.Event(), list[BaseException]()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def target() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(serve(stop, started.set))
        except BaseException as error:
            failure.append(error)
            started.set()
        finally:
            loop.close()

    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    started.wait()
    if failure:
        thread.join()
        raise failure[0]
    try:
        yield
    finally:
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=10)
