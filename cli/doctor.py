"""`svod doctor`: every setting and every system behind it, one line each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
import sqlalchemy.exc
from rich.markup import escape

from cli.local import sandbox_of
from cli.project import MARK, enter, fail, out
from cli.query import warehouse
from resources.http import redact
from resources.postgres import PostgresError, connect, database_url, require_answer

Finding = tuple[bool, str]


def doctor() -> None:
    """Print what is right and what is not; status 1 if anything is not."""
    folder = enter()
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "Python": _python,
        "Settings": lambda: _settings(folder),
        "DAGSTER_HOME": _dagster_home,
        "DAGSTER_POSTGRES_URL": _postgres,
        "CLICKHOUSE_URL": _clickhouse,
        "BITRIX24_WEBHOOK_URL": _bitrix24,
        "METRIKA_TOKEN": _metrika,
        "METRIKA_MODELS_DIR": _models,
        "MTS_LINK_API_TOKEN": _mts_link,
        "MTS_VATS_LOGIN": _mts_vats,
        "TTM_SERVER": _ttm,
        "TTM_DB_SCHEMA": _ticket_tables,
        "SCORING_ENCRYPTION_KEY": _scoring,
    }
    bad = 0
    for name, check in checks.items():
        for good, text in _safely(check):
            bad += not good
            mark = "[green]ok  [/]" if good else "[red]FAIL[/]"
            out.print(f"{mark} {name}: {escape(text)}", highlight=False, soft_wrap=True)
    if bad:
        raise fail(f"{bad} of the checks failed.")


def _safely(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except dg.Failure as failure:
        yield False, redact(failure.description or "failed")
    except Exception as error:
        text = str(error).strip().splitlines()
        yield False, redact(f"{type(error).__name__}: {text[0] if text else ''}")


def _silent(failure: dg.Failure, source: str) -> Finding:
    """Why a source gave no answer, and what runs its sandbox."""
    hint = " `make dev` runs the sandbox." if sandbox_of(source).port else ""
    return False, redact((failure.description or "no answer") + hint)


def _python() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info < (3, 14)
    yield good, f"{sys.version.split()[0]}" + ("" if good else "; Svod is tested with 3.11 to 3.13")


def _settings(folder: Path) -> Iterator[Finding]:
    path = folder / ".env"
    if not path.exists():
        yield True, f"no .env beside {MARK}: the environment is used"
    elif path.stat().st_mode & 0o077:
        yield False, f".env can be read by others, and it holds passwords: chmod 600 {path}"
    else:
        yield True, ".env is readable by its owner only"
    from etl_assets.bitrix24.settings import bitrix24_settings

    yield True, f"days of {bitrix24_settings().zone} from {bitrix24_settings().start_date}"


def _dagster_home() -> Iterator[Finding]:
    home = os.environ.get("DAGSTER_HOME", "")
    good = bool(home) and Path(home).is_absolute() and (Path(home) / "dagster.yaml").exists()
    yield (
        good,
        home
        if good
        else f"{home or 'not set'}: there is no dagster.yaml in it; run `make env` for local use",
    )


def _postgres() -> Iterator[Finding]:
    try:
        url = database_url()
        require_answer(url)
    except PostgresError as error:
        yield False, str(error)
        return
    engine = connect(url)
    try:
        with engine.connect() as connection:
            yield True, f"PostgreSQL {connection.execute(sa.text('SHOW server_version')).scalar_one()}"
    except sqlalchemy.exc.OperationalError as error:
        yield False, redact(str(error.orig).strip().splitlines()[0])
    finally:
        engine.dispose()


def _clickhouse() -> Iterator[Finding]:
    version, size = warehouse().query(
        "SELECT version(), formatReadableSize((SELECT sum(bytes_on_disk) FROM system.parts WHERE active))"
    )[0]
    embedded = os.environ.get("CLICKHOUSE_URL", "").startswith("chdb:")
    yield True, f"ClickHouse {version}{', embedded' if embedded else ''}, {size} of data"


def _bitrix24() -> Iterator[Finding]:
    from etl_assets.bitrix24.settings import bitrix24_resource
    from resources.bitrix24 import preflight

    resource = bitrix24_resource()
    try:
        rows = preflight(resource.client)
    except dg.Failure as failure:
        yield _silent(failure, "bitrix24")
        return
    for row in rows:
        yield row.ok, f"{row.subject}: {row.detail}"


def _ticket_tables() -> Iterator[Finding]:
    from etl_assets.ttm.settings import configured, database_resource, ttm_settings

    if not configured():
        yield True, "not set up"
        return
    tables = database_resource(ttm_settings()).tables
    try:
        loads = tables.rows("select max(complete_at) as at from ttm_loads where day = ''")
    except PostgresError as error:
        yield False, str(error)
        return
    at = loads[0]["at"]
    fresh = (
        f"the list of suspended tickets was read whole at {at:%Y-%m-%d %H:%M} UTC" if at else "nothing loaded"
    )
    yield True, f"the tables are in place, schema {tables.schema}; {fresh}"


def _scoring() -> Iterator[Finding]:
    """The scoring service's settings, and its work that waits."""
    if not os.environ.get("SCORING_ENCRYPTION_KEY"):
        yield True, "not set: the scoring service is not used"
        return
    from resources.scoring_service.ledger import Ledger
    from resources.scoring_service.uploads import Uploads
    from services.scoring_api.settings import LedgerError, Settings

    try:
        settings = Settings.from_environ()
        ledger = Ledger(settings.database, settings.cipher)
        if not ledger.ready():
            yield True, "the key is good; the service makes its tables at its first start"
            return
        free, due, sent = Uploads(ledger).waiting()
    except (LedgerError, PostgresError) as error:
        yield False, str(error)
        return
    yield True, f"{free} conversions in no file yet, {due} files to be sent now, {sent} at Metrika"


def _metrika() -> Iterator[Finding]:
    """Each counter with its zone, and whether its logs may be ordered."""
    from etl_assets.metrika.settings import configured, metrika_resource, metrika_settings

    if not configured():
        yield True, "not set up"
        return
    settings, resource = metrika_settings(), metrika_resource()
    resource = resource.model_copy(update={"give_up_s": 5.0})
    for counter in settings.counters:
        try:
            found = resource.client.counter(counter)
            requests = resource.client.log_requests(counter)
            kept = sum(r.size for r in requests if r.status == "processed") / 1e9
            elsewhere = f"; times are shown in {settings.zone}" if found.zone != settings.zone else ""
            yield True, f"counter {counter}: {found.zone}, {kept:.1f} of 10 GB of prepared logs{elsewhere}"
        except dg.Failure as failure:
            yield _silent(failure, "metrika")


def _models() -> Iterator[Finding]:
    """The models of visits of level 4+: which are used, and whether they can be read."""
    from etl_assets.metrika.level4_settings import level4_settings
    from etl_assets.metrika.settings import configured
    from resources.metrika.features import DEVICES, FEATURES

    if not configured():
        yield True, "not set up"
        return
    models = level4_settings().models
    for name in DEVICES.values():
        if models.file(name) is None:
            yield True, f"{name}: there is none; metrika/level4_models trains one (docs/level4.md)"
            continue
        chosen = models.load(name)
        chosen.model.check(FEATURES)
        yield True, f"{name}: {chosen.model.file}, threshold {chosen.threshold:g}"


def _mts_vats() -> Iterator[Finding]:
    from etl_assets.mts_vats.settings import configured, mts_vats_resource

    if not configured():
        yield True, "not set up"
        return
    resource = mts_vats_resource()
    for name in resource.names():
        try:
            with resource.client(name, secrets=False) as client:
                spoken = client.session.protocol
                known = (
                    "" if spoken.ordinals_known else "; its forms have changed and are looked for at a load"
                )
                yield True, f"cabinet {name}: logged in, permutation {spoken.permutation[:8]}…{known}"
        except dg.Failure as failure:
            yield _silent(failure, "mts_vats")


def _mts_link() -> Iterator[Finding]:
    """One question a group of methods: what the key may read."""
    from etl_assets.mts_link.endpoints import BY_NAME
    from etl_assets.mts_link.settings import mts_link_resource, mts_link_settings
    from resources.mts_link import Call, Refused

    settings = mts_link_settings()
    if not sandbox_of("mts_link").configured:
        yield True, "not set up"
        return
    resource = mts_link_resource()
    for name in ("organization_members", "organization_courses", "endless_meetings_list", "files_list"):
        endpoint = BY_NAME[name]
        try:
            resource.client.get(Call(endpoint.path, endpoint.paging.query(1, 0, None)))
            yield True, f"{endpoint.group}: the key may read {name}"
        except Refused as refused:
            yield False, f"{endpoint.group}: {name} is refused with {refused}; give the key the scope for it"
        except dg.Failure as failure:
            yield _silent(failure, "mts_link")
            return
    yield True, f"classes of data that are read: {', '.join(sorted(settings.classes))}"


def _ttm() -> Iterator[Finding]:
    """The hub, and each connector with the state of its ticket system."""
    from resources.ttm.protocol import USABLE, TtmError
    from resources.ttm.requester import HubClient
    from resources.ttm.settings import SettingError

    if not sandbox_of("ttm").configured:
        yield True, "not set up"
        return
    try:
        with HubClient.from_settings(patience_s=2) as client:
            connectors = client.status()["connectors"]
    except (SettingError, TtmError) as error:
        hint = " `make dev` runs the sandbox with its hub." if sandbox_of("ttm").port else ""
        yield False, f"{error}{hint}"
        return
    if not connectors:
        yield False, "the hub answers, no connector is connected to it"
    for each in connectors:
        state = f"ticket system {each['upstream']}, {each['done']} done, {each['lost']} lost"
        yield each["upstream"] in USABLE, f"connector {each['instance']}: {state}"
