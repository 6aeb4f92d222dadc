"""/docs: the OpenAPI description as one page with examples, rendered here.

The usual Swagger page loads its scripts from elsewhere; a service that holds tokens loads nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from services.scoring_api.pages import SAFE, templates

router = APIRouter(include_in_schema=False)
METHODS = ("get", "post", "patch", "delete")


@router.get("/docs")
def docs(request: Request) -> Response:
    """Every route with its parameters, an example of a request, and its answers."""
    schema = request.app.openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for route in _routes(schema):
        groups.setdefault(route["tag"], []).append(route)
    values = {"info": schema["info"], "groups": groups, "csrf": "", "inside": False}
    return templates.TemplateResponse(request, "reference.html", values, headers=SAFE)


def _routes(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path, methods in schema["paths"].items():
        for method in METHODS:
            if route := methods.get(method):
                yield {
                    "tag": (route.get("tags") or ["Служба"])[0],
                    "method": method.upper(),
                    "path": path,
                    "summary": route.get("summary", ""),
                    "about": route.get("description", ""),
                    "parameters": route.get("parameters", []),
                    "example": _request_example(schema, route),
                    "answers": _answers(schema, route),
                    "admin": bool(route.get("security")),
                }


def _request_example(schema: Mapping[str, Any], route: Mapping[str, Any]) -> str:
    content = route.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        return _pretty(example(schema, content["application/json"]["schema"]))
    if "multipart/form-data" in content:
        return "multipart/form-data: file, counter, token, target"
    return ""


def _answers(schema: Mapping[str, Any], route: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for status, answer in route["responses"].items():
        content = answer.get("content", {}).get("application/json")
        found[status] = _pretty(example(schema, content["schema"])) if content else ""
    return found


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


_PLAIN = {"string": "текст", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def example(schema: Mapping[str, Any], part: Mapping[str, Any], depth: int = 0) -> Any:
    """A value that fits a part of the description; its own example where it has one."""
    if "$ref" in part:
        name = part["$ref"].rsplit("/", 1)[1]
        return example(schema, schema["components"]["schemas"][name], depth + 1) if depth < 8 else {}
    for known in ("example", "default", "const"):
        if known in part:
            return part[known]
    if part.get("examples"):
        return part["examples"][0]
    if "enum" in part:
        return part["enum"][0]
    if "properties" in part:
        return {name: example(schema, each, depth + 1) for name, each in part["properties"].items()}
    if "anyOf" in part:
        return example(schema, part["anyOf"][0], depth + 1)
    if part.get("type") == "array":
        return [example(schema, part.get("items", {}), depth + 1)]
    if part.get("format") == "date-time":
        return "2025-02-03T10:15:00Z"
    return _PLAIN.get(part.get("type", ""), {})
