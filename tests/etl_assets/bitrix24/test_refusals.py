"""What the portal refuses: one clear message where it belongs, and no secret anywhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster_shared.serdes import serialize_value

from tests.etl_assets.house import House, failures, house, small_portal

OTHERS = ("crm_lead", "crm_status", "department")
SECRET = "sandbox0secret"


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Retries wait for nothing."""
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt: 0)
    monkeypatch.setattr("resources.bitrix24.portal.Portal._backoff", lambda portal, failures: 0.0)
    with house(tmp_path_factory.mktemp("refusals"), small_portal(smart_processes=False)) as place:
        yield place


def step(name: str) -> str:
    return f"bitrix24__{name}"


def succeeded(result: dg.ExecuteInProcessResult) -> set[str]:
    kind = dg.DagsterEventType.STEP_SUCCESS
    return {(e.step_key or "") for e in result.all_events if e.event_type == kind}


def everything_said(place: House, result: dg.ExecuteInProcessResult) -> str:
    """All that Dagster keeps of a run: events, log lines, errors with their causes, the run and its job."""
    entries = place.instance.all_logs(result.run_id)
    run = place.instance.get_run_by_id(result.run_id)
    assert run is not None
    job = place.instance.get_job_snapshot(run.job_snapshot_id or "")
    return "\n".join([*(serialize_value(e) for e in entries), serialize_value(run), serialize_value(job)])


def attempts(result: dg.ExecuteInProcessResult, name: str) -> int:
    kinds = (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED)
    return sum(e.step_key == step(name) and e.event_type in kinds for e in result.all_events)


@pytest.mark.parametrize("method", ["crm.quote.fields", "crm.quote.list crm.item.list"])
def test_an_entity_that_may_not_be_read_fails_alone_with_what_to_do(place: House, method: str):
    for name in method.split():
        place.portal.faults.add("nested_error", method=name, times=None, code="ACCESS_DENIED", status=403)
    result = place.run("crm_quote", *OTHERS, feed=True)
    assert set(failures(result)) == {step("crm_quote")}
    assert {step(n) for n in OTHERS} <= succeeded(result)
    said = failures(result)[step("crm_quote")]
    assert "access denied" in said
    assert "give the owner the right" in said
    assert "\n" not in said
    assert attempts(result, "crm_quote") == 1


def test_a_missing_scope_is_named_for_the_entities_that_need_it(place: House):
    place.portal.config.scopes = ("crm",)
    result = place.run("user", *OTHERS, feed=True)
    assert set(failures(result)) == {step("user"), step("department")}
    for said in failures(result).values():
        assert "the webhook lacks the scope `" in said
    assert {step("crm_lead"), step("crm_status")} <= succeeded(result)


def test_children_do_not_fail_with_their_owner(place: House):
    place.portal.faults.add(
        "nested_error", method="crm.deal.fields", times=None, code="ACCESS_DENIED", status=403
    )
    result = place.run("crm_deal", "crm_deal_contact", "crm_productrow", "crm_quote", feed=True)
    assert set(failures(result)) == {step("crm_deal")}


def wrong_code(place: House, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("BITRIX24_WEBHOOK_URL", place.portal.webhook_url.replace(SECRET, SECRET + "7"))


def no_url(place: House, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("BITRIX24_WEBHOOK_URL", f"{SECRET}://nothing")


def expired(place: House, patch: pytest.MonkeyPatch) -> None:
    place.portal.faults.add(
        "status", times=None, status=401, code="expired_token", description="The webhook has expired"
    )


def unreachable(place: House, patch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patch.setenv("BITRIX24_WEBHOOK_URL", f"http://127.0.0.1:{port}/rest/1/{SECRET}/")


def unknown_host(place: House, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("BITRIX24_WEBHOOK_URL", f"https://portal.invalid/rest/1/{SECRET}/")


def broken(place: House, patch: pytest.MonkeyPatch) -> None:
    place.portal.faults.add("html", times=None, status=502)


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (wrong_code, "the portal does not know the webhook code"),
        (no_url, "BITRIX24_WEBHOOK_URL is not a webhook URL"),
        (expired, "the webhook has expired"),
        (unreachable, "refuses connections: check BITRIX24_WEBHOOK_URL"),
        (unknown_host, "host name is unknown: check BITRIX24_WEBHOOK_URL"),
        (broken, "the portal keeps failing"),
    ],
)
def test_a_portal_that_cannot_be_read_is_one_clear_message_without_the_secret(
    place: House,
    arrange: Any,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    arrange(place, monkeypatch)
    result = place.run("crm_lead", feed=True, quiet=False)
    (message,) = failures(result).values()
    assert said in message
    output = capfd.readouterr()
    for text in (everything_said(place, result), caplog.text, output.out, output.err):
        assert SECRET not in text


def test_a_warehouse_that_cannot_be_used_is_one_clear_message_without_the_password(
    place: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("resources.clickhouse.errors.INSERT_ATTEMPTS", 1)
    monkeypatch.setenv("CLICKHOUSE_URL", "http://svod:hush0hush@127.0.0.1:9/svod")
    result = place.run("crm_lead", feed=True, quiet=False)
    (message,) = failures(result).values()
    assert "127.0.0.1" in message or "CLICKHOUSE_URL" in message
    output = capfd.readouterr()
    for text in (everything_said(place, result), output.out, output.err):
        assert "hush0hush" not in text
