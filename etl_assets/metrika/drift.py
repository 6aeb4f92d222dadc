"""How the models' probabilities of a day differ from those of the day before: the population stability index.

PSI sums (share today - share before) * ln(share today / share before) over ten classes of probability. By
custom 0.1 is a small shift and 0.25 a large one.
"""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

import dagster as dg

from resources.clickhouse import WarehouseResource
from resources.metrika.features import DEVICES

CHECK = "score_drift"
CLASSES = 10
LOOK_BACK = timedelta(days=7)  # a silent day, or one that was not loaded, is passed over
FEWEST = 100  # scored visits, below which two days say nothing of each other

Histogram = tuple[int, ...]  # visits by class of probability: [0, 0.1), [0.1, 0.2) …


@dataclass(frozen=True, slots=True)
class Drift:
    """A day of one counter and device against the one before it."""

    counter: int
    device: int
    day: date
    before: date
    today: Histogram
    earlier: Histogram

    @property
    def psi(self) -> float | None:
        """None if a day has too few visits."""
        if min(sum(self.today), sum(self.earlier)) < FEWEST:
            return None
        return stability_index(self.earlier, self.today)


def stability_index(before: Histogram, now: Histogram) -> float:
    """PSI of two histograms; half a visit is added to each class, so that none is empty."""
    earlier, later = ([n + 0.5 for n in histogram] for histogram in (before, now))
    shares = [(a / sum(earlier), b / sum(later)) for a, b in zip(earlier, later, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in shares)


def drifts(warehouse: WarehouseResource, counters: Sequence[int], days: Sequence[date]) -> list[Drift]:
    """Each of the days against the nearest earlier one that has scores."""
    if not counters or not days:
        return []
    rows = warehouse.query(
        "SELECT counter_id, device, date, sumForEach("
        f"arrayMap(c -> least(toUInt8(score * {CLASSES}), {CLASSES - 1}) = c, range({CLASSES}))) "
        "FROM metrika.visit_scores "
        f"WHERE counter_id IN ({', '.join(map(str, counters))}) "
        f"AND date BETWEEN '{min(days) - LOOK_BACK}' AND '{max(days)}' "
        "GROUP BY counter_id, device, date ORDER BY date"
    )
    return compared(((c, d, day, tuple(map(int, counts))) for c, d, day, counts in rows), set(days))


def compared(rows: Iterable[tuple[int, int, date, Histogram]], days: set[date]) -> list[Drift]:
    """`rows` are (counter, device, day, histogram) by day."""
    series: dict[tuple[int, int], list[tuple[date, Histogram]]] = defaultdict(list)
    for counter, device, day, histogram in rows:
        series[counter, device].append((day, histogram))
    return [
        Drift(counter, device, day, before, today, earlier)
        for (counter, device), found in sorted(series.items())
        for (before, earlier), (day, today) in pairwise(found)
        if day in days and day - before <= LOOK_BACK
    ]


def check_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CHECK,
        asset=asset,
        description="Probabilities are spread as on the day before (PSI): models see what they learnt.",
    )


def check(found: Sequence[Drift], limit: float) -> dg.AssetCheckResult:
    """WARN if a day's PSI is greater than the limit; a table of all, histograms of the newest day."""
    measured = [(d, psi) for d in found if (psi := d.psi) is not None]
    worst = max((psi for _, psi in measured), default=None)
    drifted = [f"{d.day} ({DEVICES[d.device]}): {psi:.2f}" for d, psi in measured if psi > limit]
    metadata: dict[str, dg.MetadataValue | float] = {"limit": limit}
    if worst is not None:
        metadata |= {"largest_psi": round(worst, 4), "days": dg.MetadataValue.md(_table(found[-60:]))}
        newest = max(d.day for d, _ in measured)
        metadata["histogram"] = dg.MetadataValue.md(_plot([d for d, _ in measured if d.day == newest]))
        said = f"{len(drifted)} of {len(measured)} comparisons over {limit}: {', '.join(drifted[:5])}"
    else:
        said = f"No two days with {FEWEST} scored visits to compare"
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not drifted,
        severity=dg.AssetCheckSeverity.WARN,
        description=said if drifted or worst is None else None,
        metadata=metadata,
    )


def _table(found: Sequence[Drift]) -> str:
    rows = [
        f"| {d.day} | {d.before} | {d.counter} | {DEVICES[d.device]} | {sum(d.today)} | {sum(d.earlier)} | "
        f"{'—' if d.psi is None else f'{d.psi:.3f}'} |"
        for d in found
    ]
    head = "| day | compared with | counter | device | visits | visits before | PSI |\n|" + "---|" * 7
    return "\n".join([head, *rows])


def _plot(found: Sequence[Drift]) -> str:
    """Markdown with an inline PNG: shares of visits by probability, before and now."""
    from matplotlib.figure import Figure  # half a second to import: only where a plot is drawn

    shown = found[:4]
    figure = Figure(figsize=(3.6 * len(shown), 2.4), dpi=80)
    for place, drift in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), place)
        for shift, histogram, day, colour in (
            (0.25, drift.earlier, drift.before, "#b9b4ef"),
            (0.65, drift.today, drift.day, "#4f43dd"),
        ):
            shares = [n / sum(histogram) for n in histogram]
            axes.bar([i + shift for i in range(CLASSES)], shares, 0.4, color=colour, label=f"{day:%d.%m}")
        axes.set_xticks(range(0, CLASSES + 1, 2), [f"{i / CLASSES:.1f}" for i in range(0, CLASSES + 1, 2)])
        axes.set_title(f"{drift.counter} {DEVICES[drift.device]}, PSI {drift.psi:.3f}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return inline(figure, "probabilities by day")


def inline(figure: object, title: str) -> str:
    """A matplotlib figure as Markdown."""
    png = io.BytesIO()
    figure.tight_layout()  # type: ignore[attr-defined]
    figure.savefig(png, format="png")  # type: ignore[attr-defined]
    return f"![{title}](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})"


__all__ = ["CHECK", "Drift", "check", "check_spec", "compared", "drifts", "stability_index"]
