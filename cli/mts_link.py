"""`svod mts-link`: one method of MTS Link into a JSON file, as the old extractors did it.

`[GROUP] [EXTRACTOR] [--list] [--all] [--<parameter> VALUE …]`. The same client and table of methods as the
assets; nothing goes into the warehouse.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from cli.project import enter, err, out
from etl_assets.mts_link.endpoints import BY_NAME, ENDPOINTS, Endpoint
from etl_assets.mts_link.loads import emails
from etl_assets.mts_link.reading import EARLIEST, WindowReader, period
from etl_assets.mts_link.settings import TOKEN, MtsLinkSettings, mts_link_resource, mts_link_settings
from etl_assets.mts_link.tables import RowMaker
from resources.http import redact
from resources.mts_link import Call, MtsLinkClient, MtsLinkResource, Refused
from resources.mts_link.answers import text_id

OLD_SETTINGS = "config/tokens.json"
GROUPS = ("addressbook", "chats", "events", "files", "organisation", "tests")
USAGE = """usage: {name} [EXTRACTOR] [--list|-l] [--all|-a] [--help] [--<parameter> VALUE ...]

  EXTRACTOR     one extractor, with its parameters
  --list, -l    extractors and their parameters
  --all, -a     every extractor that needs no parameter
  (nothing)     choose one

Writes EXTRACTOR_YYYYmmdd_HHMMSS.json into EXTRACTION_PATH, or into the current folder."""


class Wrong(Exception):
    """What was typed cannot be done; the text says why."""


def run(group: str | None, arguments: Sequence[str], name: str = "svod mts-link") -> int:
    """The command line; the exit status. `group` None: all groups, or one that the first argument names."""
    rest = list(arguments)
    if group is None and rest and _group(rest[0]):
        group, rest = _group(rest[0]), rest[1:]
    offered = [e for e in ENDPOINTS if group in (None, e.group)]
    try:
        return _run(offered, rest, name)
    except Wrong as wrong:
        err.print(str(wrong), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except (KeyboardInterrupt, EOFError):
        return 130


def _group(word: str) -> str | None:
    return {"organization": "organisation"}.get(word, word) if word in (*GROUPS, "organization") else None


def _run(offered: list[Endpoint], arguments: list[str], name: str) -> int:
    flags, word, values = _parse(arguments)
    if "help" in flags:
        out.print(USAGE.format(name=name), markup=False, highlight=False)
        return 0
    if "list" in flags:
        _print_list(offered)
        return 0
    here = Path.cwd()
    enter()
    folder = (here / os.environ.get("EXTRACTION_PATH", "")).resolve()
    _mind_old_settings(here)
    if "all" in flags:
        return _all(offered, folder)
    chosen, values = (_named(offered, word), values) if word else _asked(offered)
    return _extract([(chosen, values)], folder)


def _mind_old_settings(here: Path) -> None:
    """Raises Wrong where the key stands only in the file that the old extractors read."""
    old = next((p for p in (here / OLD_SETTINGS, Path.cwd() / OLD_SETTINGS) if p.is_file()), None)
    if old and not os.environ.get(TOKEN):
        raise Wrong(
            f"{TOKEN} is not set, and {OLD_SETTINGS} is no longer read: put its api_token into {TOKEN} "
            "and its base_url into MTS_LINK_URL (.env or the environment), then delete it."
        )


def _parse(arguments: list[str]) -> tuple[set[str], str, dict[str, str]]:
    """(flags, the extractor or an empty text, parameters)."""
    flags, word, values = set[str](), "", dict[str, str]()
    rest = iter(arguments)
    for argument in rest:
        if flag := {"-l": "list", "--list": "list", "-a": "all", "--all": "all"}.get(argument):
            flags.add(flag)
        elif argument in ("-h", "--help"):
            flags.add("help")
        elif argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            if not equals and (value := next(rest, None)) is None:
                raise Wrong(f"--{key} needs a value.")
            values[key] = value
        elif word:
            raise Wrong(f"One extractor at a time: {word} or {argument}?")
        else:
            word = argument
    return flags, word, values


def _named(offered: list[Endpoint], word: str) -> Endpoint:
    found = next((e for e in offered if e.name == word), None)
    if found is None:
        where = f"; it is in the group {BY_NAME[word].group}" if word in BY_NAME else ""
        raise Wrong(f"There is no extractor {word} here{where}. --list shows what there is.")
    return found


def _print_list(offered: list[Endpoint]) -> None:
    for endpoint in offered:
        needs = [f"--{p}" for p in _required(endpoint)]
        may = [f"--{p}" for p in endpoint.options]
        text = f"{endpoint.name}  {' '.join(needs)}" + (f"  [{' '.join(may)}]" if may else "")
        out.print(text, markup=False, highlight=False, soft_wrap=True)


def _required(endpoint: Endpoint) -> tuple[str, ...]:
    return endpoint.placeholders or (("userID",) if endpoint.parent == "visitors" else ())


def _asked(offered: list[Endpoint]) -> tuple[Endpoint, dict[str, str]]:
    """What a person chooses and types."""
    for number, endpoint in enumerate(offered, 1):
        out.print(f"{number:3}  {endpoint.name}", markup=False, highlight=False)
    typed = input("Extractor, by number or name: ").strip()
    if typed.isdigit() and 1 <= int(typed) <= len(offered):
        chosen = offered[int(typed) - 1]
    else:
        chosen = _named(offered, typed)
    return chosen, {name: input(f"{name}: ").strip() for name in _required(chosen)}


def _all(offered: list[Endpoint], folder: Path) -> int:
    """Every extractor without a parameter whose class of data is on."""
    classes = mts_link_settings().classes
    chosen = []
    for endpoint in offered:
        if _required(endpoint) or endpoint.parent:
            continue
        if endpoint.name == "user_profile" and not os.environ.get("MTS_LINK_OAUTH_TOKEN"):
            out.print("user_profile: left out, an API key is refused there (MTS_LINK_OAUTH_TOKEN)")
        elif endpoint.privacy in classes:
            chosen.append((endpoint, {}))
        else:
            out.print(f"{endpoint.name}: left out, MTS_LINK_CLASSES does not name {endpoint.privacy}")
    return _extract(chosen, folder)


def _extract(chosen: Sequence[tuple[Endpoint, dict[str, str]]], folder: Path) -> int:
    """Write a file for each; status 1 if one of them could not be read."""
    if not folder.is_dir():
        raise Wrong(f"EXTRACTION_PATH: there is no folder {folder}.")
    settings, resource = mts_link_settings(), mts_link_resource()
    failed = 0
    for endpoint, values in chosen:
        try:
            found = Extraction(endpoint, values, resource, settings).read()
        except Refused as refused:
            failed += 1
            err.print(f"{endpoint.name}: refused with {refused}", style="red", markup=False, soft_wrap=True)
        except dg.Failure as failure:
            failed += 1
            text = redact(failure.description or "failed")
            err.print(f"{endpoint.name}: {text}", style="red", markup=False, soft_wrap=True)
        else:
            path = _write(folder, endpoint.name, found)
            count = len(found) if isinstance(found, list) else 1
            out.print(f"{endpoint.name}: {count:,} in {path}", markup=False, highlight=False, soft_wrap=True)
    return int(failed > 0)


def _write(folder: Path, name: str, content: Any) -> Path:
    """The file, for its owner only: it may hold addresses of people."""
    path = folder / f"{name}_{datetime.now():%Y%m%d_%H%M%S}.json"
    fresh = path.with_suffix(".part")
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
    fresh.replace(path)
    return path


class Extraction:
    """One method with the parameters that were typed."""

    def __init__(
        self,
        endpoint: Endpoint,
        values: dict[str, str],
        resource: MtsLinkResource,
        settings: MtsLinkSettings,
    ) -> None:
        """Raises Wrong for a parameter that is missing or unknown."""
        self._endpoint, self._settings = endpoint, settings
        self._client: MtsLinkClient = resource.client
        self._scrubber = resource.scrubber
        self._zone = ZoneInfo(settings.zone)
        filtered = endpoint.name == "contacts_search" and not values
        self._path, self._query = self._filled(dict(settings.contacts_filter if filtered else values))

    def _filled(self, values: dict[str, str]) -> tuple[str, dict[str, str]]:
        endpoint, path = self._endpoint, self._endpoint.path
        for name in endpoint.placeholders:
            key = next((k for k in values if k.lower() == name.lower()), None)
            if key is None or not values[key]:
                raise Wrong(f"{endpoint.name} needs --{name}.")
            path = path.replace(f"{{{name}}}", self._person(values.pop(key)))
        if endpoint.parent == "visitors" and not {"email", "contactId"} & values.keys():
            values["email"] = self._email(values)
        known = {o.removesuffix("[]") for o in endpoint.options}
        for key in values:
            if key.partition("[")[0] not in {k.partition("[")[0] for k in known}:
                raise Wrong(
                    f"{endpoint.name} knows no --{key}; it knows {', '.join(sorted(known)) or 'none'}."
                )
        return path, values

    def _person(self, value: str) -> str:
        """Chats know people by another id: the number of a user is looked up."""
        if self._endpoint.parent != "chat_members" or not value.isdigit():
            return value
        members = BY_NAME["chats_organization_members"]
        for page in self._client.pages(Call(members.path, {}, members.paging)):
            for member in page.items:
                if text_id(member.get("mtsLinkUserId")) == value:
                    return text_id(member.get("chatUserId"))
        return value

    def _email(self, values: dict[str, str]) -> str:
        """Visits are asked for by e-mail; the old parameter was a user's id."""
        key = next((k for k in values if k.lower() == "userid"), None)
        if key is None:
            raise Wrong(f"{self._endpoint.name} needs --email, --contactId or --userID.")
        user = values.pop(key)
        if not (email := emails(self._client).get(user)):
            raise Wrong(f"{self._endpoint.name}: no employee {user} with an e-mail.")
        return email

    def read(self) -> Any:
        """All records: a list, or the object of a method that gives one. Raises Refused, dagster.Failure."""
        endpoint = self._endpoint
        try:
            if endpoint.paging.family == "once" and endpoint.strategy != "messages" and not self._stepped:
                call = Call(self._path, self._whole_query(), whole=endpoint.whole)
                found = self._client.get(call)[0].content
                return (
                    self._clean(found) if isinstance(found, dict) else [self._clean(r) for r in found or []]
                )
            found = [self._clean(record) for record in self._records()]
            return _joined(found) if self._stepped else found
        except Refused as refused:
            if refused.status in endpoint.absent and not refused.no_route:
                return []
            raise

    @property
    def _stepped(self) -> bool:
        """Whether a long period is read piece by piece."""
        window = self._endpoint.window
        return bool(window and window.step_days) and not self._query.keys() & {"from", "to"}

    def _whole_query(self) -> dict[str, str]:
        window, query = self._endpoint.window, {**self._endpoint.query, **self._query}
        if window is None:
            return query
        until = self._client.now() + timedelta(days=window.ahead_days)
        return period(window, EARLIEST, until, self._zone) | query

    def _records(self) -> Iterator[dict[str, Any]]:
        endpoint = self._endpoint
        if endpoint.strategy == "messages" and self._query.keys() <= {"viewerId"}:
            viewer = self._query.get("viewerId", "")
            pages = self._client.messages(self._path, viewer, None, self._settings.message_pages)
        elif self._stepped:
            maker = RowMaker(endpoint, self._scrubber, self._zone, self._settings.classes)
            reader = WindowReader(endpoint, self._client, maker, out.print, zone=self._zone)
            until = self._client.now() + timedelta(days=1)
            pages = reader.pages(EARLIEST, until)
        else:
            pages = self._client.pages(Call(self._path, self._whole_query(), endpoint.paging))
        for page in pages:
            yield from page.items

    def _clean(self, record: dict[str, Any]) -> dict[str, Any]:
        return self._scrubber.scrub(record, self._endpoint.dropped)


def _joined(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of a period that was read piece by piece, as one answer has them: a person once, with all of
    the sessions."""
    found: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(records):
        key = text_id(record.get("id")) or f"{number} without an id"
        sessions = record.get("eventSessions")
        if key in found and isinstance(sessions, list):
            there = found[key].setdefault("eventSessions", [])
            there += [session for session in sessions if session not in there]
        else:
            found[key] = record
    return list(found.values())


def main(group: str) -> int:
    """What the scripts of old names call."""
    from resources.http import install_log_redaction

    install_log_redaction()
    return run(group, sys.argv[1:], Path(sys.argv[0]).name)
