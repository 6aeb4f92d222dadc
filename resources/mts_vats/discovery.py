"""What the cabinet's compiled page tells of its protocol: permutation, policies, checksums, enum ordinals.

Nothing here speaks to the network. The texts are `vpbxGwt.nocache.js` (names of permutations) and
`<permutation>.cache.js` (the compiled page), as GWT's linkers of 2.5 to 2.12 write them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from resources.mts_vats import models

DISPATCHER_ENDPOINT = "DispatcherGwtService"
BROWSER_ENDPOINT = "AbonentBrowserGwtService"
DEVICE_ENDPOINT = "AbonentDeviceFormGwtService"
DEVICE_FORM_ORDINAL, FALLBACK_FORM_ORDINAL = 31, 32

_STRONG_NAME = r"[0-9A-F]{32}"
_PERMUTATION = re.compile(rf"""['"]({_STRONG_NAME})(?::\d+)?['"]""")
_KNOWN_VARIABLE = re.compile(rf"""\bbc\s*=\s*['"]({_STRONG_NAME})['"]""")
_SIGNATURE = re.compile(r"""['"]([a-zA-Z_][\w.$]*\.[\w$]+)/(\d{1,10})['"]""")
_ENUM_CONSTANT = re.compile(r"""['"]([A-Z][A-Z0-9_]*)['"]\s*,\s*(\d{1,4})\s*\)""")
_PROXY_METHOD = re.compile(rf"""['"]{DEVICE_ENDPOINT}_Proxy['"]\s*,\s*['"](\w+)['"]""")


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a request must say to be understood. Pins stand in for what was not found."""

    permutation: str
    policies: Mapping[str, str]
    checksums: Mapping[str, int] = field(default_factory=dict)
    ordinals: tuple[int, int] = (DEVICE_FORM_ORDINAL, FALLBACK_FORM_ORDINAL)
    ordinals_known: bool = True
    device_methods: tuple[str, ...] = ()

    def signature(self, name: str) -> str:
        """`Class/CRC` as the cabinet has it now."""
        return models.signature(name, self.checksums)


# Values of 2021: the last resort, when the page cannot be read at all.
PINNED = Protocol(
    permutation="8D33296C87009E8A7F770D9106FD287D",
    policies={
        DISPATCHER_ENDPOINT: "EAA49B7B1A97DFBDC367A2E2573FB3B7",
        BROWSER_ENDPOINT: "3D7E196DA92A574D98BAC0DEE7D909C8",
    },
)


def permutations(nocache: str) -> list[str]:
    """Names of the compiled variants, each once, the one of the known variable first.

    Any will do: policies do not depend on the variant.
    """
    names = [*_KNOWN_VARIABLE.findall(nocache), *_PERMUTATION.findall(nocache)]
    return list(dict.fromkeys(names))


def policies(script: str) -> dict[str, str]:
    """Endpoint -> serialization policy, from the arguments of the proxies' constructors.

    Newer compilers put the literals into variables; those are looked up.
    """
    found = {}
    for endpoint in (DISPATCHER_ENDPOINT, BROWSER_ENDPOINT, DEVICE_ENDPOINT):
        policy = _policy(script, endpoint)
        if policy:
            found[endpoint] = policy
    return found


def _policy(script: str, endpoint: str) -> str | None:
    direct = re.search(rf"""['"]{endpoint}['"]\s*,\s*['"]({_STRONG_NAME})['"]""", script)
    if direct:
        return direct[1]
    names = re.findall(rf"""([\w$]+)\s*=\s*['"]{endpoint}['"]""", script)
    spelled = "|".join([rf"""['"]{endpoint}['"]""", *(rf"(?<![\w$]){re.escape(n)}" for n in names)])
    for found in re.finditer(rf"""(?:{spelled})\s*,\s*(?:['"]({_STRONG_NAME})['"]|([\w$]+))""", script):
        if found[1]:
            return found[1]
        value = re.search(rf"""(?<![\w$]){re.escape(found[2])}\s*=\s*['"]({_STRONG_NAME})['"]""", script)
        if value:
            return value[1]
    return None


def checksums(script: str) -> dict[str, int]:
    """Class -> CRC of every signature in the compiled page."""
    return {name: int(crc) for name, crc in _SIGNATURE.findall(script)}


def policy_checksums(text: str) -> dict[str, int]:
    """Class -> CRC of a `.gwt.rpc` policy file: `class, bool × 4, class/CRC, CRC`."""
    rows = (line.split(", ") for line in text.splitlines())
    return {row[0]: int(row[6]) for row in rows if len(row) == 7 and re.fullmatch(r"\d{1,10}", row[6])}


def device_methods(script: str) -> tuple[str, ...]:
    """Names of the remote methods of the device service, in file order."""
    return tuple(dict.fromkeys(_PROXY_METHOD.findall(script)))


def enum_constants(script: str, name: str, checksum: int) -> tuple[str, ...] | None:
    """The constants of an enum in order: the run of constructor calls whose names give the checksum.

    GWT's checksum of an enum is CRC-32 over its name and the names of its constants. None where the
    compiler has hidden the names.
    """
    for run in _runs(script):
        crc = zlib.crc32(name.encode())
        for at, constant in enumerate(run, 1):
            crc = zlib.crc32(constant.encode(), crc)
            if crc == checksum:
                return run[:at]
    return None


def _runs(script: str) -> Iterator[tuple[str, ...]]:
    """Constants numbered 0, 1, 2, … one after the other."""
    run: list[str] = []
    for constant, ordinal in _ENUM_CONSTANT.findall(script):
        if int(ordinal) == len(run):
            run.append(constant)
            continue
        if run:
            yield tuple(run)
        run = [constant] if ordinal == "0" else []
    if run:
        yield tuple(run)


def form_ordinals(constants: tuple[str, ...]) -> tuple[int, int] | None:
    """(device form, fallback form) by the names of the constants; None where none is a device form.

    The names are not public: a device form of an abonent is one that says so.
    """
    device = [i for i, name in enumerate(constants) if re.search(r"ABONENT.*DEVICE", name)]
    if len(device) != 1:
        return None
    sip = [i for i, name in enumerate(constants) if re.search(r"ABONENT.*SIP", name) and i != device[0]]
    return device[0], sip[0] if len(sip) == 1 else device[0] + 1


def protocol(permutation: str, script: str) -> Protocol:
    """All that a compiled page tells, with pins for the rest."""
    found = checksums(script)
    checksum = found.get(models.DISPATCHER, models.PINNED[models.DISPATCHER])
    changed = checksum != models.PINNED[models.DISPATCHER]
    constants = enum_constants(script, models.DISPATCHER, checksum) if changed else None
    ordinals = form_ordinals(constants) if constants else None
    return Protocol(
        permutation=permutation,
        policies={**PINNED.policies, **policies(script)},
        checksums=found,
        ordinals=ordinals or PINNED.ordinals,
        ordinals_known=not changed or ordinals is not None,
        device_methods=device_methods(script),
    )
