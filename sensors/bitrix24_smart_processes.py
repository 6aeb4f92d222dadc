"""Notice smart processes that were created, changed or removed on the portal, and load new ones."""

import hashlib
import json
import re

import dagster as dg
import requests

from etl_assets.bitrix24.assets import DATABASE
from etl_assets.bitrix24.smart_processes import STATE_KEY, PortalType, portal_types
from etl_assets.bitrix24.universal_lists import STATE_KEY as LISTS_KEY
from etl_assets.bitrix24.work_reading import universal_lists
from etl_assets.partitions import today
from etl_assets.settings import text
from resources.bitrix24 import Bitrix24Resource
from resources.errors import TransientSourceError

registered = dg.DynamicPartitionsDefinition(name="bitrix24_smart_process")
LOCATION = "etl"
REFRESH = """mutation Refresh($location: String!, $key: String!) {
  refreshComponentState(locationName: $location, defsStateKey: $key) {
    __typename ... on RefreshComponentStateError { message } ... on PythonError { message }
  }
}"""


def build_sensors(running: bool) -> list[dg.SensorDefinition]:
    """Both sensors; without a credential they do not start by themselves."""
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
    notice = dg.sensor(
        minimum_interval_seconds=60,
        default_status=status,
        description="Registers smart processes by number, lets their assets appear, archives gone ones.",
    )
    load = dg.sensor(
        minimum_interval_seconds=30,
        default_status=status,
        target=dg.AssetSelection.groups(DATABASE),
        description="Loads a smart process or a universal list whose asset has just appeared.",
    )
    lists = dg.sensor(
        minimum_interval_seconds=300,
        default_status=status,
        description="Lets the assets of new universal lists appear; gone ones are archived.",
    )
    return [notice(new_smart_processes), lists(new_universal_lists), load(first_load)]


def new_smart_processes(
    context: dg.SensorEvaluationContext, bitrix24: Bitrix24Resource
) -> dg.SensorResult | dg.SkipReason:
    """Refresh the component's state when the portal's types differ from those of the last refresh."""
    types = portal_types(bitrix24.client)
    known = set(registered.get_partition_keys(dynamic_partitions_store=context.instance))
    print_now = _fingerprint(types)
    new = sorted({str(t.entity_type_id) for t in types} - known, key=int)
    if context.cursor == print_now and not new:
        return dg.SkipReason(f"{len(types)} smart processes, none new or changed")
    refresh_state()
    # Registered only after the refresh: a failed one is tried again at the next tick.
    requests_ = [registered.build_add_request(new)] if new else []
    return dg.SensorResult(cursor=print_now, dynamic_partitions_requests=requests_)


def new_universal_lists(
    context: dg.SensorEvaluationContext, bitrix24: Bitrix24Resource
) -> dg.SensorResult | dg.SkipReason:
    """Refresh the component's state when the portal's lists differ from those of the last refresh."""
    lists = universal_lists(bitrix24.client)
    print_now = hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]
    if context.cursor == print_now or (context.cursor is None and not lists):
        return dg.SkipReason(f"{len(lists)} universal lists, none new or changed")
    refresh_state(LISTS_KEY)
    return dg.SensorResult(cursor=print_now)


def _fingerprint(types: list[PortalType]) -> str:
    return hashlib.sha256(
        json.dumps([[t.entity_type_id, t.title, t.revision] for t in types]).encode()
    ).hexdigest()[:16]


def refresh_state(key: str = STATE_KEY) -> None:
    """Let the webserver refresh a component's state and reload the location.

    Raises TransientSourceError if it cannot be reached or refuses.
    """
    url = text("DAGSTER_WEBSERVER_URL", "http://127.0.0.1:3000").rstrip("/")
    payload = {"query": REFRESH, "variables": {"location": LOCATION, "key": key}}
    try:
        answer = requests.post(f"{url}/graphql", json=payload, timeout=180)
        result = answer.json()["data"]["refreshComponentState"]
        kind = result["__typename"]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise TransientSourceError(
            f"The webserver could not be asked to refresh {key} ({type(error).__name__}): "
            "set DAGSTER_WEBSERVER_URL, or run `dg utils refresh-defs-state` and reload the location."
        ) from None
    if kind not in ("RefreshComponentStateSuccess", "RefreshComponentStateAccepted"):
        raise TransientSourceError(f"Refreshing {key} failed: {result.get('message', kind)}")


def first_load(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One run, over all partitions, for each that was never materialized."""
    graph = context.repository_def.asset_graph if context.repository_def else None
    keys = [
        k
        for k in (graph.get_all_asset_keys() if graph else [])
        if re.fullmatch(r"(crm_dynamic_items|lists)_\d+", k.path[-1])
    ]
    wanted = []
    for key in sorted(k for k in keys if k.path[0] == DATABASE):
        assert graph is not None
        node = graph.get(key)
        if "archived" in node.tags or context.instance.get_latest_materialization_event(key):
            continue
        definition = node.partitions_def
        tags: dict[str, str] = {}
        if isinstance(definition, dg.TimeWindowPartitionsDefinition):
            tags = {
                "dagster/asset_partition_range_start": definition.get_first_partition_key() or "",
                "dagster/asset_partition_range_end": today(definition),
            }
        wanted.append(
            dg.RunRequest(run_key=f"first {key.to_user_string()}", asset_selection=[key], tags=tags)
        )
    if not wanted:
        return dg.SkipReason("Everything that was found has been loaded")
    return dg.SensorResult(run_requests=wanted)
