"""Who comes in: proofs on both sides, roles, versions, and an address that fails too often."""

import json
import logging
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from resources.ttm.handshake import ClientHandshake
from resources.ttm.protocol import CONNECTOR, METHODS, REQUESTER, TtmError
from resources.ttm.settings import Settings, client_tls
from services.ttm_hub.config import Identity, hub_config
from tests.services.ttm_hub.hub_house import (
    KEY,
    TOKEN,
    Client,
    RunningHub,
    StubConnector,
    StubRequester,
    running_hub,
)
from tests.support.certificates import private_ca


def hello(**changes: Any) -> dict[str, Any]:
    return (
        ClientHandshake(CONNECTOR, TOKEN, KEY, "c1", "test", methods=list(METHODS), capacity=1).hello
        | changes
    )


def test_both_sides_prove_the_key_and_learn_the_limits(hub: RunningHub):
    with Client(hub) as client:
        handshake = ClientHandshake(REQUESTER, TOKEN, KEY, "r1", "test")
        client.send(handshake.hello)
        challenge = client.read()
        assert (challenge["type"], challenge["v"], challenge["alg"]) == ("challenge", 1, "hmac-sha256")
        client.send(handshake.auth(challenge))
        limits = handshake.check(client.read())
    assert limits == {
        "max_message": 8388608,
        "heartbeat": 15,
        "heartbeat_grace": 45,
        "ack_timeout": 5,
        "max_inflight": 64,
        "default_timeout": 120,
        "max_timeout": 600,
    }


@pytest.mark.parametrize(
    ("token", "key"), [(TOKEN, "another-key"), ("nobody", KEY), ("nobody", "another-key")]
)
def test_a_wrong_key_and_an_unknown_token_fail_alike_at_auth(hub: RunningHub, token: str, key: str):
    with Client(hub) as client:
        handshake = ClientHandshake(CONNECTOR, token, key, "c1", "test")
        client.send(handshake.hello)
        client.send(handshake.auth(client.read()))
        assert client.close_code() == 4401


def test_a_proof_is_good_for_one_connection_only(hub: RunningHub):
    handshake = ClientHandshake(REQUESTER, TOKEN, KEY, "r1", "test")
    with Client(hub) as first:
        first.send(handshake.hello)
        proof = handshake.auth(first.read())
        first.send(proof)
        handshake.check(first.read())
    with Client(hub) as second:
        second.send(handshake.hello)
        second.read()
        second.send(proof)
        assert second.close_code() == 4401


def test_a_proof_of_one_role_is_none_of_the_other(hub: RunningHub):
    with Client(hub) as client:
        handshake = ClientHandshake(REQUESTER, TOKEN, KEY, "r1", "test")
        client.send(handshake.hello | {"role": "connector", "methods": [], "capacity": 1})
        client.send(handshake.auth(client.read()))
        assert client.close_code() == 4401


def test_a_forged_hub_is_left():
    """The client's check: a hub with another key proves nothing."""
    with running_hub(identities={TOKEN: Identity("the key of somebody else")}) as forged:
        with Client(forged) as client:
            handshake = ClientHandshake(REQUESTER, TOKEN, "the key of somebody else", "r1", "test")
            client.send(handshake.hello)
            client.send(handshake.auth(client.read()))
            welcome = client.read()
        mine = ClientHandshake(REQUESTER, TOKEN, KEY, "r1", "test")
        mine.auth({"type": "challenge", "v": 1, "alg": "hmac-sha256", "conn": "k-1", "nonce": "n" * 32})
        with pytest.raises(TtmError, match="unauthorized"):
            mine.check(welcome)


def test_a_role_that_the_token_may_not_have_is_refused():
    identities = {"c": Identity("key-of-c", frozenset({CONNECTOR})), "r": Identity("key-of-r")}
    with running_hub(identities=identities) as hub, Client(hub) as client:
        handshake = ClientHandshake(REQUESTER, "c", "key-of-c", "r1", "test")
        client.send(handshake.hello)
        client.send(handshake.auth(client.read()))
        assert client.close_code() == 4403
        with Client(hub) as allowed:
            allowed.introduce(CONNECTOR, "c1", token="c", key="key-of-c", methods=[], capacity=1)


def test_no_common_version_says_so(hub: RunningHub):
    with Client(hub) as client:
        client.send(hello(v=[2, 3]))
        assert client.read()["code"] == "version"
        assert client.close_code() == 4426


def test_a_client_that_speaks_more_versions_gets_the_common_one(hub: RunningHub):
    with Client(hub) as client:
        client.send(hello(v=[3, 1]))
        assert client.read()["v"] == 1


@pytest.mark.parametrize(
    "message",
    [
        "",
        "not json",
        b"\x00binary",
        "[]",
        '{"type":"request","id":"1"}',
        json.dumps(hello(instance="two\nlines")),
        json.dumps(hello(token="two\nlines")),
        json.dumps(hello(nonce="n" * 20 + "\n")),
        json.dumps(hello(nonce="short")),
        json.dumps(hello(role="admin")),
        json.dumps(hello(capacity=0)),
        json.dumps(hello(v="1")),
        "[" * 100_000,
    ],
    ids=range(13),
)
def test_a_malformed_hello_ends_with_4400(hub: RunningHub, message: str | bytes):
    with Client(hub) as client:
        client.send(message)
        assert client.read()["code"] in ("bad_request", "unknown_type")
        assert client.close_code() == 4400


def test_a_silent_client_is_let_go():
    with running_hub(limits={"handshake": 0.2}) as hub:
        with Client(hub) as silent:
            assert silent.close_code() == 4408
        with Client(hub) as half:
            half.send(hello())
            half.read()
            assert half.close_code() == 4408


def test_five_failures_shut_an_address_out_for_a_while():
    with running_hub(failure_window=1.0) as hub:
        for _ in range(5):
            with Client(hub) as client:
                client.send(hello(v=[9]))
                assert client.close_code() == 4426
        with pytest.raises(InvalidStatus) as refused:
            Client(hub)
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        assert get(hub, "/healthz")[0] == 503  # health is still told
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with StubRequester(hub):
                    return
            except InvalidStatus:
                time.sleep(0.1)
        pytest.fail("the address stays shut")


def test_a_client_without_the_subprotocol_is_refused(hub: RunningHub):
    with pytest.raises(InvalidStatus) as refused:
        Client(hub, subprotocols=None)
    assert refused.value.response.status_code == 400


def test_a_second_connection_of_an_instance_replaces_the_first(hub: RunningHub):
    with StubConnector(hub, "c1") as first, StubConnector(hub, "c1") as second, StubRequester(hub) as asker:
        assert first.close_code() == 4409
        asker.ask(1)
        second.answer(second.take())
        assert asker.expect("response")["connector"] == "c1"


def get(hub: RunningHub, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{hub.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_healthz_is_well_while_a_connectors_ticket_system_is(hub: RunningHub):
    assert get(hub, "/healthz")[0] == 503
    with StubConnector(hub, "c1") as connector:
        assert get(hub, "/healthz")[0] == 503
        connector.beat("ok")
        assert get(hub, "/healthz") == (200, "ok\n")
        connector.beat("auth_failed")
        assert get(hub, "/healthz")[0] == 503
    assert get(hub, "/nothing")[0] == 404
    assert get(hub, "/")[0] == 404


def test_metrics_tell_what_happened_and_no_secret(hub: RunningHub):
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        connector.beat("ok")
        asker.ask(1)
        connector.answer(connector.take())
        asker.expect("response")
        status, text = get(hub, "/metrics")
    assert status == 200
    assert 'ttm_hub_requests_total{method="ticket.get",outcome="ok"} 1.0' in text
    assert 'ttm_hub_connectors{upstream="ok"} 1.0' in text
    assert 'ttm_hub_request_seconds_count{method="ticket.get"} 1.0' in text
    assert KEY not in text
    assert TOKEN not in text


def certificates(folder: Path) -> tuple[dict[str, str], Path, Path]:
    """Settings of a hub that demands client certificates, and a client's certificate and key."""
    files = private_ca(folder / "server")
    authority = trustme.CA()
    leaf = authority.issue_cert("connector.example")
    ca, chain, key = folder / "clients.pem", folder / "client.pem", folder / "client.key"
    authority.cert_pem.write_to_path(ca)
    leaf.cert_chain_pems[0].write_to_path(chain)
    leaf.private_key_pem.write_to_path(key)
    settings = {"TTM_TLS_CERT": str(files.server_chain), "TTM_TLS_KEY": str(files.server_key)}
    return settings | {"TTM_TLS_CA": str(ca), "server_ca": str(files.ca_file)}, chain, key


def test_wss_with_a_private_authority_and_client_certificates(tmp_path: Path):
    settings, chain, key = certificates(tmp_path)
    server_ca = settings.pop("server_ca")
    config = hub_config(Settings({"TTM_TOKEN": TOKEN, "TTM_KEY": KEY, "TTM_PORT": "0", **settings}))
    with running_hub(tls=config.tls) as hub:
        with Client(hub, tls=client_tls(server_ca, str(chain), str(key))) as client:
            client.introduce(REQUESTER, "r1")
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(hub, tls=ssl.create_default_context())
        with pytest.raises(
            (OSError, InvalidHandshake, ConnectionClosed)
        ):  # TLS 1.3 refuses after the client's part
            Client(hub, tls=client_tls(server_ca)).introduce(REQUESTER, "r1")


def test_the_key_occurs_in_no_frame_and_no_log(hub: RunningHub, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        asker.ask(1)
        connector.answer(connector.take())
        asker.expect("response")
        with Client(hub) as wrong:
            handshake = ClientHandshake(CONNECTOR, TOKEN, "another-key", "c2", "test")
            wrong.send(handshake.hello)
            wrong.send(handshake.auth(wrong.read()))
            assert wrong.close_code() == 4401
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "mac" in said  # the library's own log of frames is in it
    assert KEY not in said
