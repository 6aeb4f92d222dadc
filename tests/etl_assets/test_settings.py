"""Settings from the environment: what is malformed is one clear line that names the setting."""

import dagster as dg
import pytest

from etl_assets import settings
from etl_assets.bitrix24.settings import bitrix24_resource, bitrix24_settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BITRIX24_TIMEZONE", "Moscow", "Unknown time zone 'Moscow'"),
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
