"""What a person finds of Yandex.Metrika in the catalogue before anything has run."""

from collections.abc import Iterator

import dagster as dg
import pytest

from etl_assets.metrika.fields import HITS, LOGS, VISITS
from sandbox.metrika.catalogue import field_of
from tests.etl_assets.metrika.counter_house import CounterHouse, counter_house, day


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CounterHouse]:
    with counter_house(tmp_path_factory.mktemp("catalogue")) as house:
        yield house


@pytest.mark.parametrize("name", ["visits", "hits"])
def test_a_log_says_what_it_is_whose_it_is_and_where_it_comes_from(house: CounterHouse, name: str):
    graph = house.defs.resolve_asset_graph()
    node = graph.get(dg.AssetKey(["metrika", name]))
    for part in ("**Grain** one row per counter_id, date, ", "**Freshness** `0 6 * * *`", "**Source** `"):
        assert part in (node.description or "")
    assert (node.group_name, node.owners) == ("metrika", ["team:data-platform"])
    assert (node.kinds, node.pools) == ({"metrika", "clickhouse"}, {"metrika"})
    assert "pii" in node.tags
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    columns = node.metadata["dagster/column_schema"].columns
    assert all(column.description for column in columns if column.name != "dt_inserted")
    found = {c.name for c in graph.get_check_keys_for_assets({node.key})}
    assert found >= {"rejected_rows", "schema_drift", "complete", "unique_key", "days_present"}
    view = graph.get(dg.AssetKey(["bi", name]))
    assert view.parent_keys == {node.key}


def test_the_newest_partition_is_yesterday(house: CounterHouse):
    for name in ("visits", "hits", "level4_visits", "level4_conversions"):
        partitions = house.defs.resolve_asset_graph().get(dg.AssetKey(["metrika", name])).partitions_def
        assert partitions is not None
        assert partitions.get_last_partition_key() == str(day(1))


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS.keys())
def test_all_fields_are_the_apis_and_fit_into_one_request(log):
    assert all(field_of(log.name, field) for field in log.fields())
    assert len(",".join(log.fields())) <= 3000


def test_the_fields_are_the_recommended_ones():
    assert (len(VISITS.fields()), len(HITS.fields())) == (59, 37)
    types = {c.name: c.type for log in LOGS.values() for c in log.table("Europe/Moscow").columns}
    assert types["visit_id"] == types["watch_id"] == types["client_id"] == "UInt64"
    assert types["watch_ids"] == "Array(UInt64)"
    assert types["date_time"] == "DateTime('Europe/Moscow')"
    assert types["date_time_msk"] == "DateTime('Etc/GMT-3')"
    assert types["goals_date_time"] == "Array(DateTime('Etc/GMT-3'))"
    assert types["traffic_source"] == "LowCardinality(String)"


def test_tables_of_counters_of_several_zones_are_one():
    one, other = VISITS.table("UTC", "Europe/Moscow"), VISITS.table("UTC", "Asia/Vladivostok")
    assert one.definitions() == other.definitions()
    assert one.fingerprint() != other.fingerprint(), "each reads local times in its own way"
