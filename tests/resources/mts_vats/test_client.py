"""The client against the emulated cabinet: every trunk is there, or an error says which are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resources.errors import PermanentSourceError, TransientSourceError
from resources.mts_vats.client import IncompleteError, MtsVatsClient, Trunk
from resources.mts_vats.session import Cabinet
from sandbox.mts_vats import CabinetConfig, VirtualCabinet, serve
from tests.support.certificates import private_ca

Open = Callable[..., tuple[VirtualCabinet, MtsVatsClient]]


def expected(cabinet: VirtualCabinet) -> list[dict[str, Any]]:
    """What the trunks of the cabinet are, in its order."""
    rows = []
    for t in cabinet.trunks.values():
        known, has_form = t.form == 31, t.form is not None
        line = f"mobsip_{t.phone}" if t.line and known else None
        rows.append(
            {
                "id": t.id,
                "state": {(1, 1, 0, 0): "active", (0, 0, 1, 1): "disabled_marked"}[t.flags],
                "phone": f"7{t.phone}",
                "login": f"sip_{t.phone}_1" if has_form else None,
                "password": t.password if has_form else None,
                "line": line,
                "device": t.has_device if known else None,
                "enabled": (t.has_device and t.enabled) if known else None,
                "status": "ok" if has_form else "no_form",
            }
        )
    return rows


def found(trunks: list[Trunk]) -> list[dict[str, Any]]:
    return [
        {
            "id": t.abonent.id,
            "state": t.abonent.state,
            "phone": t.phone,
            "login": t.form and t.form.login,
            "password": t.form and t.form.password,
            "line": t.form and t.form.line,
            "device": t.form and t.form.has_device,
            "enabled": t.form and t.form.enabled,
            "status": t.status,
        }
        for t in trunks
    ]


MISHAPS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "sessions that end": {"expire_every": 7},
    "server errors": {"fail_every": 9},
    "a redeploy in the list": {"redeploy_at": 6},
    "a redeploy among the forms": {"redeploy_at": 60},
    "a redeploy that hides the names of forms": {"redeploy_at": 60, "names_hidden": True},
    "a redeploy, ending sessions and errors": {"redeploy_at": 50, "expire_every": 11, "fail_every": 13},
    "calls may not overlap": {"overlap": True},
    "a list without totals": {"totals": False},
    "a last page for ever": {"totals": False, "clamp": True, "trunks": 120},
    "rows of an unknown class": {"changed_row": True, "without_form": 0},
    "GWT 2.8": {"modern": True},
    "split arrays and strings": {"array_part": 50, "string_part": 20},
    "an empty cabinet": {"trunks": 0},
}


@pytest.mark.parametrize("mishap", MISHAPS)
def test_every_trunk_is_there_whatever_happens(open_cabinet: Open, mishap: str):
    settings = {"trunks": 117, **MISHAPS[mishap]}
    cabinet, client = open_cabinet({"page_size": 10}, **settings)
    assert found(client.trunks()) == expected(cabinet)
    assert cabinet.stats.failed_logins == 0
    assert cabinet.stats.most_at_once <= 1


def test_pages_have_any_number_and_ids_any_length(open_cabinet: Open):
    cabinet, client = open_cabinet({"page_size": 2}, trunks=150)
    assert [a.id for a in client.abonents()] == list(cabinet.trunks)
    assert cabinet.stats.methods["list"] == 75
    assert len({len(str(i)) for i in cabinet.trunks}) > 1


def test_several_calls_at_once_are_bounded_and_give_the_same(open_cabinet: Open):
    cabinet, client = open_cabinet({"concurrency": 4}, trunks=60, expire_every=17, latency_s=0.005)
    assert found(client.trunks()) == expected(cabinet)
    assert 1 < cabinet.stats.most_at_once <= 4


@pytest.mark.parametrize(("broken", "seen"), [("cut", "begin with '//OK["), ("stranger", "another abonent")])
def test_a_broken_form_is_named_and_the_others_are_there(open_cabinet: Open, broken: str, seen: str):
    cabinet, client = open_cabinet(trunks=30)
    victim = next(t for t in cabinet.trunks.values() if t.form == 31)
    victim.broken = broken
    with pytest.raises(IncompleteError) as error:
        client.trunks()
    assert set(error.value.missing) == {victim.id}
    assert str(victim.id) in (error.value.description or "")
    assert seen in (error.value.description or "")
    assert victim.password not in (error.value.description or "")
    trunks = list(client.iter_trunks())
    assert [t.abonent.id for t in trunks if t.status != "error"] == [
        i for i in cabinet.trunks if i != victim.id
    ]


def test_a_cabinet_of_which_nothing_can_be_read_is_left_alone_soon(open_cabinet: Open):
    cabinet, client = open_cabinet(trunks=80, without_form=0, fallback_form=0)
    for trunk in cabinet.trunks.values():
        trunk.broken = "cut"
    with pytest.raises(IncompleteError) as error:
        client.trunks()
    assert set(error.value.missing) == set(cabinet.trunks)
    assert cabinet.stats.methods["getForm"] == 10


def test_a_cabinet_that_shows_no_form_at_all_is_an_error(open_cabinet: Open):
    _, client = open_cabinet(trunks=12, without_form=1)
    with pytest.raises(PermanentSourceError, match="a form of none of 12 trunks"):
        client.trunks()


def test_rows_that_move_between_pages_are_read_again(open_cabinet: Open):
    cabinet, client = open_cabinet({"page_size": 10}, trunks=45)
    ask, removed = client._ask_page, list(cabinet.trunks)[0]  # noqa: RUF015

    def remove_the_first(number: int, *rest: Any, **options: Any) -> Any:
        if number == 2:
            cabinet.trunks.pop(removed, None)
        return ask(number, *rest, **options)

    client._ask_page = remove_the_first  # type: ignore[method-assign]
    assert [a.id for a in client.abonents()] == list(cabinet.trunks)


def test_a_list_that_never_stands_still_is_an_error(open_cabinet: Open):
    cabinet, client = open_cabinet({"page_size": 10}, trunks=45)
    ask = client._ask_page

    def add_one(number: int, *rest: Any, **options: Any) -> Any:
        cabinet.add()
        return ask(number, *rest, **options)

    client._ask_page = add_one  # type: ignore[method-assign]
    with pytest.raises(TransientSourceError, match="its total changed"):
        client.abonents()


def test_a_refused_login_is_tried_once(open_cabinet: Open):
    cabinet, client = open_cabinet()
    cabinet.config.password = "an0ther-passw0rd"
    with pytest.raises(PermanentSourceError, match="the login was refused"):
        client.trunks()
    assert cabinet.stats.failed_logins == 1


def test_a_server_that_keeps_failing_is_asked_four_times(open_cabinet: Open, clock: Any):
    cabinet, client = open_cabinet(fail_every=1)
    with pytest.raises(TransientSourceError, match="status 500"):
        client.abonents()
    assert clock.slept == [1, 2, 4]
    assert cabinet.stats.calls == 4


def test_a_changed_shape_fails_with_what_was_seen(open_cabinet: Open):
    cabinet, client = open_cabinet(trunks=5, changed_row=True)
    for trunk in cabinet.trunks.values():
        trunk.flags = (7, 1, 0, 0)
    with pytest.raises(PermanentSourceError) as error:
        client.abonents()
    said = error.value.description or ""
    assert "AbonentBrowserRecordGWTModel/1000000007" in said
    assert "tokens" in said
    assert next(iter(cabinet.trunks.values())).phone not in said


def test_passwords_are_forgotten_unless_asked_for(open_cabinet: Open):
    cabinet, client = open_cabinet({"secrets": False}, trunks=20)
    trunks = client.trunks()
    assert {t.form.password for t in trunks if t.form} == {None}
    assert not any(t.password in repr(trunks) for t in cabinet.trunks.values())


def test_the_certificate_is_verified_at_the_old_cipher_level_too(tmp_path: Path):
    good, other = private_ca(tmp_path / "good"), private_ca(tmp_path / "other")
    with serve(CabinetConfig(trunks=3), (good.server_chain, good.server_key)) as cabinet:

        def client(**settings: Any) -> MtsVatsClient:
            config = cabinet.config
            return MtsVatsClient(Cabinet("main", cabinet.base_url, config.login, config.password, **settings))

        assert len(client(ca_bundle=str(good.ca_file)).trunks()) == 3
        assert len(client(ca_bundle=str(good.ca_file), ciphers=None).trunks()) == 3
        for bundle in (None, str(other.ca_file)):
            with pytest.raises(PermanentSourceError, match="certificate is not trusted"):
                client(ca_bundle=bundle).trunks()
        with pytest.raises(PermanentSourceError, match="MTS_VATS_TLS_CIPHERS"):
            client(ciphers="NO SUCH CIPHER")


def test_credentials_do_not_follow_a_redirect_to_another_host(open_cabinet: Open):
    cabinet, client = open_cabinet(trunks=3)
    address, cabinet.base_url = cabinet.base_url, "http://elsewhere.invalid"
    assert (
        len(client.trunks()) == 3
    )  # the address alone says that the login was taken, and of which enterprise
    cabinet.config.password = "an0ther-passw0rd"
    with pytest.raises(PermanentSourceError, match="the login was refused"):
        client.session.log_in()
    assert client.session.base.startswith(address)


def test_a_redirect_that_says_nothing_is_not_followed_to_another_host(open_cabinet: Open):
    cabinet, client = open_cabinet(trunks=3)
    cabinet.base_url = "http://elsewhere.invalid/gate?"
    with pytest.raises(PermanentSourceError, match=r"redirects to elsewhere\.invalid"):
        client.trunks()
