"""`svod backfill`: years of one asset in chunks, each one run and one scan; goes on where it was stopped."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import dagster as dg

from cli.load import Request, definitions
from cli.project import enter, fail, out
from cli.runs import follow
from cli.services import Interrupted, local_systems, postgres, stop_signals


def chunk_days(text: str) -> int:
    """Days in `90d`, `4w` or `90`; ValueError for anything else."""
    found = re.fullmatch(r"([1-9]\d*)([dw]?)", text.strip())
    if not found:
        raise ValueError(f"{text!r} is no chunk: give days such as 90d, or weeks such as 4w")
    return int(found[1]) * (7 if found[2] == "w" else 1)


def chunks(keys: list[str], days: int) -> Iterator[list[str]]:
    """Runs of at most `days` partition keys, oldest first."""
    for start in range(0, len(keys), days):
        yield keys[start : start + days]


def backfill(asset: str, first: str | None, last: str | None, chunk: str, force: bool, deals: int) -> None:
    """Materialize the days from `first` to `last`, both inclusive; chunks done before are passed over."""
    folder = enter()
    try:
        days = chunk_days(chunk)
    except ValueError as error:
        raise fail(str(error)) from None
    try:
        with (
            stop_signals(),
            postgres(folder),
            local_systems(deals, [asset.split("/")[0]]),
            dg.DagsterInstance.get() as instance,
        ):
            key = dg.AssetKey.from_user_string(asset)
            keys = _partition_keys(definitions(), key, first, last)
            done = set() if force else instance.get_materialized_partitions(key)
            parts = list(chunks(keys, days))
            for number, part in enumerate(parts, 1):
                title = f"{number}/{len(parts)} {part[0]}…{part[-1]}"
                if done.issuperset(part):
                    out.print(f"{title}  done before", highlight=False)
                    continue
                request = Request(str(uuid.uuid4()), [asset], part[0], part[-1])
                outcome = follow(request, instance, title)
                if not outcome.success:
                    reason = next(iter(outcome.failures.values()), outcome.said) or "the run failed"
                    raise fail(f"{title}: {reason}\nRun the same command again to go on from here.")
                out.print(f"{title}  loaded", highlight=False)
    except Interrupted:
        raise fail("Stopped. Run the same command again to go on from here.") from None


def _partition_keys(defs: dg.Definitions, key: dg.AssetKey, first: str | None, last: str | None) -> list[str]:
    graph, name = defs.resolve_asset_graph(), key.to_user_string()
    if not graph.has(key):
        raise fail(f"There is no asset {name}: `dg list defs` shows them all.")
    definition = graph.get(key).partitions_def
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        raise fail(f"{name} has no daily partitions: `dg launch --assets key:{name}` loads it.")
    keys = list(definition.get_partition_keys())
    first, last = first or keys[0], last or keys[-1]
    for day in (first, last):
        if day not in keys:
            raise fail(f"{day} is no partition of {name}: its days are {keys[0]} to {keys[-1]}.")
    if first > last:
        raise fail(f"--from {first} is later than --to {last}.")
    return keys[keys.index(first) : keys.index(last) + 1]
