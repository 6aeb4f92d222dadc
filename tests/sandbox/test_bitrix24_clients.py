"""Published clients, unmodified, read the portal and see the same rows."""

from pathlib import Path
from typing import Any

import pytest
import trustme
from b24pysdk import BitrixWebhook, Client
from fast_bitrix24 import Bitrix

from sandbox.bitrix24 import PortalConfig, serve

FILES = ("UF_CRM_SCAN", "UF_CRM_FILES")


def without_files(row: dict[str, Any]) -> dict[str, Any]:
    """File links differ on every read, as on the portal."""
    return {name: value for name, value in row.items() if name not in FILES}


@pytest.mark.filterwarnings("ignore:You are selecting all fields")
def test_fast_bitrix24_reads_all_deals() -> None:
    with serve(PortalConfig(deals=600, user_fields=True)) as portal:
        expected = {row["ID"]: without_files(row) for row in portal.expected("deal")}
        client: Any = Bitrix(portal.webhook_url, verbose=False)
        multiple = [
            name for name, spec in portal.table("deal").fields.items() if spec.user_field and spec.multiple
        ]
        rows = client.get_all("crm.deal.list", params={"select": ["*", "UF_*", *multiple]})
        assert {row["ID"]: without_files(row) for row in rows} == expected
        items = client.get_all("crm.item.list", params={"entityTypeId": 177})
        assert sorted(item["id"] for item in items) == [row["ID"] for row in portal.expected(177, "id")]


def test_b24pysdk_reads_all_deals_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    chain, trusted = tmp_path / "server.pem", tmp_path / "ca.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(chain)
    authority.cert_pem.write_to_path(trusted)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with serve(PortalConfig(deals=600), certfile=chain) as portal:
        domain = portal.base_url.removeprefix("https://")
        client = Client(BitrixWebhook(domain=domain, webhook_token="1/sandbox0secret"))
        expected = list(portal.expected("deal"))
        assert list(client.crm.deal.list(select=["*"]).as_list().result) == expected
        assert list(client.crm.deal.list(select=["*"]).as_list_fast().result) == expected
