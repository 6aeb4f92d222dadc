"""What the compiled page tells: as the linkers of several GWT versions write it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from resources.mts_vats import payloads
from resources.mts_vats.answers import Device
from resources.mts_vats.discovery import (
    Protocol,
    device_methods,
    enum_constants,
    form_ordinals,
    permutations,
    policies,
    policy_checksums,
    protocol,
)
from resources.mts_vats.gwt_lexer import decode_long
from resources.mts_vats.models import DISPATCHER

A, B, C = (
    "8D33296C87009E8A7F770D9106FD287D",
    "EAA49B7B1A97DFBDC367A2E2573FB3B7",
    "3D7E196DA92A574D98BAC0DEE7D909C8",
)
SAMPLES = Path(os.environ["SVOD_SAMPLES"]) / "mts_vats" if "SVOD_SAMPLES" in os.environ else None
needs_samples = pytest.mark.skipif(SAMPLES is None, reason="SVOD_SAMPLES names no folder of samples")


def sample(name: str) -> str:
    assert SAMPLES
    return (SAMPLES / name).read_text()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (f"f('{B}');var bc='{A}',dc=\"{C}:3\";e('{B}')", [A, B, C]),
        (f"unflatten(['x'],'{A}:1');unflatten(['y'],'{A}:2')", [A]),
        ("bc='not a name',cc='.cache.js'", []),
    ],
)
def test_permutations_stand_in_quotes(script: str, found: list[str]):
    assert permutations(script) == found


@pytest.mark.parametrize(
    "script",
    [
        f"call(this,$moduleBase,'DispatcherGwtService','{B}',x)",
        f'call(this,$moduleBase , "DispatcherGwtService" ,\n "{B}",x)',
        f"var $intern_1='DispatcherGwtService',$intern_2='{B}';call(m(),$intern_1,$intern_2,s)",
        f"a$1='DispatcherGwtService';call(m(),a$1,'{B}',s)",
        f"x='{C}';p='{B}';call(m(),'DispatcherGwtService',p,s)",
    ],
)
def test_a_policy_follows_its_endpoint(script: str):
    assert policies(script) == {"DispatcherGwtService": B}


def enum_script(constants: list[str]) -> str:
    others = [f"z{n}=new Q('ZERO_{n}',{n});" for n in range(3)]
    return "".join([*others, *(f"a{n}=new Qx('{name}',{n});" for n, name in enumerate(constants))])


CONSTANTS = [f"FORM_{n}" for n in range(40)] + ["ABONENT_DEVICE_FORM", "ABONENT_SIP_FORM", "LAST"]


def test_the_constants_of_an_enum_are_those_that_give_its_checksum():
    checksum = zlib.crc32((DISPATCHER + "".join(CONSTANTS)).encode())
    script = enum_script(CONSTANTS) + "b0=new R('X',0);"
    assert enum_constants(script, DISPATCHER, checksum) == tuple(CONSTANTS)
    assert enum_constants(script, DISPATCHER, checksum + 1) is None
    found = protocol(A, f"{script}'{DISPATCHER}/{checksum}'")
    assert (found.ordinals, found.ordinals_known) == ((40, 41), True)


def test_hidden_names_leave_the_ordinals_unknown():
    found = protocol(A, f"'{DISPATCHER}/1933436215'")
    assert (found.ordinals, found.ordinals_known) == ((31, 32), False)
    assert form_ordinals(("A", "B")) is None


def test_methods_of_the_device_service_are_named_by_its_proxy():
    assert device_methods("n(this,'AbonentDeviceFormGwtService_Proxy','setEnabled')") == ("setEnabled",)


@needs_samples
def test_the_public_scripts_are_read():
    assert permutations(sample("vpbxGwt.nocache.single.js.txt")) == [A]
    assert permutations(sample("vpbxGwt.nocache.multi.js.txt"))[0] == A
    found = policies(sample("permutation.cache.js.txt"))
    assert found["DispatcherGwtService"] == B
    assert found["AbonentBrowserGwtService"] == C
    assert policy_checksums(sample("policy.gwt.rpc.txt"))[DISPATCHER] == 4095484021


BASE = "https://vpbx.mts.ru/vpbxGwt/"


@needs_samples
def test_requests_are_the_public_ones_to_the_byte():
    spoken: Protocol = protocol(A, sample("permutation.cache.js.txt"))
    scope, abonent = decode_long("CaV5y0"), decode_long("Ca911N")
    template = Device(abonent, True, decode_long("CaK1QN"), scope, "mobsip_9990000001", None, None)
    made = {
        "req_getform31.txt": payloads.get_form(spoken, BASE, abonent, 31),
        "req_getform32.txt": payloads.get_form(spoken, BASE, abonent, 32),
        "req_list_page0.txt": payloads.list_page(spoken, BASE, scope, 0, 100),
        "req_list_page2_size10.txt": payloads.list_page(spoken, BASE, scope, 2, 10),
        "req_list_page70_nofilter.txt": payloads.list_page(
            spoken, BASE, scope, 70, 100, filters=(None, False, None, None)
        ),
        "req_list_readme_variant.txt": payloads.list_page(spoken, BASE, scope, 0, 100, slot=6),
        "req_updateform_add_device.txt": payloads.add_device(spoken, BASE, template, 31),
        "req_updateform_remove_device.txt": payloads.remove_device(spoken, BASE, abonent, 31),
    }
    assert {name: body.decode() for name, body in made.items()} == {name: sample(name) for name in made}
    switch = payloads.switch_device(spoken, BASE, abonent, True, "<METHOD>").decode()
    policy = spoken.policies["AbonentDeviceFormGwtService"]
    assert switch == sample("req_device_switch_template.txt").replace("<POLICY>", policy)
