"""The proof of the key, the client's side of the handshake, addresses, and settings with their old names."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.ttm.handshake import ClientHandshake
from resources.ttm.protocol import FAULTS, Handshake, TtmError, endpoint, fresh_nonce, valid_id
from resources.ttm.settings import Redaction, SettingError, Settings, client_tls, loopback

# the values that the protocol's description gives
KEY = "example-key-not-secret"
EXAMPLE = Handshake(
    role="connector",
    token="ttm-main",
    instance="conn-a1",
    conn="k-0123456789abcdef",
    client_nonce="Y2xpZW50LW5vbmNlLTAwMDAwMDAwMDE",
    server_nonce="c2VydmVyLW5vbmNlLTAwMDAwMDAwMDE",
)
CLIENT_MAC = "136f396549bae84fb20f5a696a2f5376d89ed82468fedde7ef4107a10de9b2e3"
SERVER_MAC = "44ea4aae522f199abaa6eac65b97f8f3f3c7257ca5653a5425c112a69056f8e8"


def test_the_proofs_of_the_description():
    assert EXAMPLE.proof(KEY, "client") == CLIENT_MAC
    assert EXAMPLE.proof(KEY, "server") == SERVER_MAC
    assert EXAMPLE.proven(KEY, "client", CLIENT_MAC)
    assert not EXAMPLE.proven(KEY, "client", SERVER_MAC)
    assert not EXAMPLE.proven(KEY, "client", CLIENT_MAC.upper())
    assert not EXAMPLE.proven(KEY, "client", "ключ")


fields = st.tuples(*[st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=12)] * 6)


@given(fields, fields)
def test_only_equal_fields_have_equal_proofs(one: tuple[str, ...], other: tuple[str, ...]):
    same = Handshake(*one).proof(KEY, "client") == Handshake(*other).proof(KEY, "client")
    assert same == (one == other)


def test_a_field_with_a_newline_has_no_proof():
    with pytest.raises(ValueError, match="newline"):
        Handshake("connector", "a\nb", "c", "d", "e", "f").proof(KEY, "client")


def test_nonces_are_fresh_and_long():
    nonces = {fresh_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(len(nonce) == 32 for nonce in nonces)


def challenge(**changes: Any) -> dict[str, Any]:
    fields = {"v": 1, "conn": EXAMPLE.conn, "nonce": EXAMPLE.server_nonce, "alg": "hmac-sha256"}
    return {"type": "challenge", **fields, **changes}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "welcome"}, "bad_request"),
        ({"type": ["challenge"]}, "bad_request"),
        (challenge(v=2), "version"),
        (challenge(alg="none"), "version"),
        (challenge(conn=None), "bad_request"),
        (challenge(nonce=5), "bad_request"),
        (challenge(conn="two\nlines"), "bad_request"),
        ({"type": "error", "code": "version", "message": "no"}, "version"),
        ({"type": "error"}, "internal"),
    ],
)
def test_a_challenge_that_is_none_is_refused(message: dict[str, Any], code: str):
    with pytest.raises(TtmError) as refused:
        ClientHandshake("requester", "t", KEY, "r", "test").auth(message)
    assert refused.value.code == code


def test_a_hub_that_sends_the_clients_own_proof_back_is_refused():
    client = ClientHandshake("requester", "t", KEY, "r", "test")
    mac = client.auth(challenge())["mac"]
    for welcome in ({"mac": mac}, {"mac": None}, {}):
        with pytest.raises(TtmError, match="unauthorized"):
            client.check({"type": "welcome", **welcome})
    with pytest.raises(TtmError, match="bad_request"):  # its own nonce, to have the proof made for it
        client.auth(challenge(nonce=client.hello["nonce"]))


@pytest.mark.parametrize(
    ("code", "status", "retryable"),
    [
        ("bad_request", 400, False),
        ("not_found", 404, False),
        ("busy", 429, True),
        ("internal", 500, True),
        ("upstream_auth", 502, False),
        ("upstream_error", 502, True),
        ("no_connector", 503, True),
        ("timeout", 504, True),
    ],
)
def test_an_error_knows_its_status_and_whether_to_ask_again(code: str, status: int, retryable: bool):
    error = TtmError(code, "text")
    assert (error.status, error.retryable) == (status, retryable)
    assert error.wire() == {"code": code, "message": "text", "retryable": retryable}
    assert len(FAULTS) == 20


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("ws://hub:8765", "ws://hub:8765/v1/ttm"),
        ("wss://hub.example/", "wss://hub.example/v1/ttm"),
        (" ws://[::1]:8765 ", "ws://[::1]:8765/v1/ttm"),
        ("wss://proxy.example/ttm/hub", "wss://proxy.example/ttm/hub"),
    ],
)
def test_an_address_gets_the_path_that_it_lacks(given_: str, expected: str):
    assert endpoint(given_) == expected


@pytest.mark.parametrize("wrong", ["http://hub:8765", "hub:8765", "", "ws://", "ws://user:password@hub:8765"])
def test_an_address_that_is_none_is_refused_without_being_shown(wrong: str):
    with pytest.raises(SettingError, match="TTM_SERVER") as refused:
        Settings({"TTM_SERVER": wrong or " "}).server()
    assert "password" not in str(refused.value).replace("must not hold a user or a password", "")


@pytest.mark.parametrize(
    ("text", "valid"), [("a", True), ("run-8f2:710012._", True), ("x" * 64, True), ("x" * 65, False)]
)
def test_ids(text: str, valid: bool):
    assert valid_id(text) is valid
    assert not valid_id(text + "\n")
    assert not valid_id(text[:1] + " ")
    assert not valid_id(None)


def test_the_prefix_wins_over_the_old_name():
    assert Settings({"KEY": "old"}).text("KEY") == "old"
    assert Settings({"KEY": "old", "TTM_KEY": "new"}).text("KEY") == "new"
    assert Settings({"KEY": "old", "TTM_KEY": " "}).text("KEY") == "old"
    with pytest.raises(SettingError, match=r"TTM_KEY \(or KEY\) is not set"):
        Settings({}).text("KEY")
    with pytest.raises(SettingError, match="TTM_TLS_CERT is not set"):
        Settings({"TLS_CERT": "not an old name"}).text("TLS_CERT")


@pytest.mark.parametrize("wrong", ["many", "0", "65536", "nan", "inf"])
def test_a_number_out_of_range_is_named_and_not_shown(wrong: str):
    with pytest.raises(SettingError, match="TTM_PORT must be a number from 1 to 65535"):
        Settings({"PORT": wrong}).number("PORT", 8765, 1, 65535)


def test_a_switch_is_on_or_off():
    assert Settings({"TTM_FORCE_LOGIN": "No"}).switch("FORCE_LOGIN", True) is False
    assert Settings({}).switch("FORCE_LOGIN", True) is True
    with pytest.raises(SettingError, match="TTM_FORCE_LOGIN"):
        Settings({"TTM_FORCE_LOGIN": "maybe"}).switch("FORCE_LOGIN", True)


def test_files_that_hold_no_certificate_are_named(tmp_path: Path):
    empty = tmp_path / "empty.pem"
    empty.touch()
    for file in (str(tmp_path / "absent.pem"), str(empty)):
        with pytest.raises(SettingError, match="TTM_TLS_CA"):
            client_tls(file)
        with pytest.raises(SettingError, match="TTM_TLS_CERT"):
            client_tls(None, file, None)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "hub.example", "")),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, local: bool):
    assert loopback(host) is local


def test_secrets_are_hidden_in_messages_arguments_and_tracebacks():
    redaction = Redaction(["a long key", "abc"])
    redaction.hide("bearer-token")
    try:
        raise ValueError("bearer-token in an error")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "%s and %s", ("a long key", "abc"), (type(error), error, None)
        )
    assert redaction.filter(record)
    text = logging.Formatter().format(record)
    assert "a long key" not in text
    assert "bearer-token" not in text
    assert "*** and abc" in text  # too short to hide: every word could hold it
