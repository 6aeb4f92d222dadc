"""The error a REST method answers with."""


class RestError(Exception):
    """`{"error": code, "error_description": description}` with an HTTP status."""

    def __init__(self, code: str, description: str = "", status: int = 400) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description
        self.status = status

    def body(self) -> dict[str, str]:
        return {"error": self.code, "error_description": self.description}


def missing(name: str) -> RestError:
    return RestError("100", f"Could not find value for parameter {{{name}}}")


def not_found(text: str = "Not found") -> RestError:
    return RestError("NOT_FOUND", text)


def bad_field(name: str, where: str) -> RestError:
    return RestError("INVALID_ARG_VALUE", f"Invalid {where}: field '{name}' is not allowed in {where}")
