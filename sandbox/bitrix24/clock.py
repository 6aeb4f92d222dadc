"""The portal clock: real, accelerated or frozen."""

import time


class PortalClock:
    """Unix seconds as the portal sees them; `advance` moves it forward at once."""

    def __init__(self, start: float | None = None, factor: float = 1.0) -> None:
        self._base = time.time() if start is None else float(start)
        self._origin = time.monotonic()
        self._factor = factor

    @property
    def factor(self) -> float:
        return self._factor

    def now(self) -> float:
        return self._base + (time.monotonic() - self._origin) * self._factor

    def advance(self, seconds: float) -> float:
        """Move forward; returns the new time. Negative steps are refused: limits rely on order."""
        if seconds < 0:
            raise ValueError("the portal clock only moves forward")
        self._base += seconds
        return self.now()

    def set_factor(self, factor: float) -> None:
        if factor < 0:
            raise ValueError("clock factor must not be negative")
        self._base, self._origin = self.now(), time.monotonic()
        self._factor = factor
