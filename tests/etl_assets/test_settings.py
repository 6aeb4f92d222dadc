"""Settings from the environment: what is malformed is one clear line that names the setting."""

from collections.abc import Callable

import dagster as dg
import pytest

from etl_assets import settings
from etl_assets.bitrix24.settings import bitrix24_resource, bitrix24_settings
from etl_assets.metrika.level4_settings import level4_settings
from etl_assets.metrika.settings import metrika_resource, metrika_settings
from etl_assets.mts_link.settings import mts_link_resource, mts_link_settings
from etl_assets.mts_vats.settings import mts_vats_resource
from etl_assets.ttm.settings import ttm_settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BITRIX24_TIMEZONE", "Moscow", "BITRIX24_TIMEZONE must be an IANA name"),
        ("BITRIX24_DELETED_SHARE_PCT", "-1", "BITRIX24_DELETED_SHARE_PCT must be at least 0"),
        ("BITRIX24_SCHEDULES", "*/5 * * * *", "BITRIX24_SCHEDULES must be a JSON object"),
        ("BITRIX24_SCHEDULES", "[]", "BITRIX24_SCHEDULES must be a JSON object"),
        ("BITRIX24_TYPES", '{"crm_deal": "Int64"}', "BITRIX24_TYPES: crm_deal must be an object of columns"),
        ("BITRIX24_TYPES", '{"deal": {}}', "BITRIX24_TYPES: there is no entity deal"),
        ("BITRIX24_TYPES", '{"crm_deal": {"A": "Int"}}', "BITRIX24_TYPES: crm_deal.A must be one of "),
        ("BITRIX24_START_DATE", "01.01.2020", "BITRIX24_START_DATE must be a day such as 2020-01-01"),
        ("BITRIX24_START_DATE", "2999-01-01", "BITRIX24_START_DATE lies in the future"),
    ],
)
def test_a_malformed_setting_is_named(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.Failure) as error:
        bitrix24_settings()
    assert (error.value.description or "").startswith(said)


@pytest.mark.parametrize(
    ("read", "name", "value", "said"),
    [
        (settings.warehouse_resource, "CLICKHOUSE_INSERT_ROWS", "0", "must be at least 1"),
        (settings.warehouse_resource, "CLICKHOUSE_INSERT_ROWS", "1.5", "must be a whole number"),
        (bitrix24_resource, "BITRIX24_BATCH_ROWS", "2500.5", "must be a whole number"),
        (bitrix24_resource, "BITRIX24_IN_FLIGHT", "99", "must be at most 32"),
        (mts_link_settings, "MTS_LINK_LOOKBACK_DAYS", "-1", "must be at least 1"),
        (mts_link_settings, "MTS_LINK_FAILED_SHARE", "-1", "must be at least 0"),
        (mts_link_settings, "MTS_LINK_MESSAGE_PAGES", "0", "must be at least 1"),
        (mts_link_settings, "MTS_LINK_TIMEZONE", "Moscow", "must be an IANA name"),
        (mts_link_settings, "MTS_LINK_HOURLY_CRON", "often", "is no cron"),
        (mts_link_resource, "MTS_LINK_RATE", "-2", "must be at least 0"),
        (mts_vats_resource, "MTS_VATS_CONCURRENCY", "0", "must be at least 1"),
        (mts_vats_resource, "MTS_VATS_CONCURRENCY", "9", "must be at most 8"),
        (mts_vats_resource, "MTS_VATS_PAGE_SIZE", "-1", "must be at least 1"),
        (metrika_resource, "METRIKA_PARALLEL", "0.5", "must be a whole number"),
        (metrika_settings, "METRIKA_RELOAD_DAYS", "366", "must be at most 365"),
        (metrika_settings, "METRIKA_SCHEDULE", "often", "is no cron"),
        (metrika_settings, "METRIKA_TIMEZONE", "Moscow", "must be an IANA name"),
        (level4_settings, "METRIKA_TARGET_PRECISION", "1.5", "must be at most 1"),
        (ttm_settings, "TTM_BUSINESS_TZ", "../zone", "must be an IANA name"),
        (ttm_settings, "TTM_SOURCE_TZ", "UTC+3", "must be an IANA name"),
    ],
)
def test_a_setting_out_of_its_range_is_named(
    read: Callable[[], object], name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLICKHOUSE_URL", "chdb:///nowhere")
    monkeypatch.setenv("METRIKA_TOKEN", "a-token-of-metrika")
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.Failure) as error:
        read()
    assert (error.value.description or "").startswith(f"{name} {said}")


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CLICKHOUSE_URL", raising=False)
    with pytest.raises(dg.Failure) as error:
        settings.warehouse_resource()
    assert (error.value.description or "").startswith("CLICKHOUSE_URL is not set")


def test_a_number_that_is_none_is_named_without_its_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BITRIX24_RATE_CAPACITY", "https://secret")
    with pytest.raises(dg.Failure) as error:
        bitrix24_resource(later=True)
    assert (error.value.description or "").startswith("BITRIX24_RATE_CAPACITY must be a number")
    assert "secret" not in (error.value.description or "")
