"""The API's errors: `{"errors": [{error_type, message, location}], "code", "message"}`."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, error_type: str, message: str, location: str | None = None) -> None:
        super().__init__(message)
        self.status, self.error_type, self.message, self.location = status, error_type, message, location

    def body(self) -> dict[str, Any]:
        error = {"error_type": self.error_type, "message": self.message}
        if self.location:
            error["location"] = self.location
        return {"errors": [error], "code": self.status, "message": self.message}
