"""What the demo shows at its end."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.demo.loop import Finished
from experiments.demo.shop import SEGMENTS, TRUE_RATES, VARIANTS, earned


def show(console: Console, finished: Finished) -> None:
    """Print the table, what the bandit earned, what was promoted, and what newcomers now get."""
    console.print(_table(finished))
    console.print(_earnings(finished))
    kept = [segment for segment in SEGMENTS if segment not in finished.promoted]
    for segment, variant in finished.promoted.items():
        console.print(f"Promoted: [bold]{variant}[/bold] is now the policy of segment {segment!r}.")
    if kept:
        console.print(f"Not proven yet, the experiment goes on there: {', '.join(kept)}.")
    for decision in finished.after:
        console.print(
            f"A new customer of {decision['segment']!r} gets {decision['variant']!r} from the {decision['source']}"
            f" (propensity {decision['propensity']:.3f})."
        )


def _table(finished: Finished) -> Table:
    table = Table(title="Opens per message: truth and what the service found (gates: min_days 0)")
    table.add_column("segment")
    table.add_column("variant")
    for name in ("true rate", "posterior mean", "95 % interval", "final weight"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    by_segment = {row["segment"]: row for row in finished.results["segments"]}
    for i, segment in enumerate(SEGMENTS):
        row = by_segment[segment]
        variants = {variant["variant"]: variant for variant in row["variants"]}
        for k, key in enumerate(VARIANTS):
            verdict = _verdict(row) if k == 0 else ""
            table.add_row(segment if k == 0 else "", *_cells(variants[key], truth=TRUE_RATES[i, k]), verdict)
        table.add_section()
    return table


def _cells(variant: Mapping[str, Any], *, truth: float) -> tuple[str, ...]:
    low, high = variant["interval"]
    return (
        variant["variant"],
        f"{truth:.3f}",
        f"{variant['mean']:.3f}",
        f"{low:.3f} .. {high:.3f}",
        f"{variant['weight']:.3f}",
    )


def _verdict(row: Mapping[str, Any]) -> str:
    return f"ship {row['winner']}" if row["verdict"] == "ship" else str(row["verdict"])


def _earnings(finished: Finished) -> str:
    found = earned(finished.n_decided)
    share = (found.bandit - found.equal_split) / (found.oracle - found.equal_split)
    return (
        f"Expected opens of {int(finished.n_decided.sum()):,} messages: bandit [bold]{found.bandit:,.0f}[/bold], equal"
        f" split {found.equal_split:,.0f}, oracle {found.oracle:,.0f}: {share:.0%} of what there was to gain."
    )
