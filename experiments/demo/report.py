"""What the demo shows at its end."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.demo.loop import Finished
from experiments.demo.shop import SEGMENTS, TRUE_RATES, VARIANTS, earned


def show(console: Console, finished: Finished) -> None:
    """Print the table, what the bandit earned, what was promoted, and what newcomers now get."""
    console.print(_table(finished))
    say = partial(console.print, soft_wrap=True)
    say(_earnings(finished))
    for segment, variant in finished.promoted.items():
        say(f"Promoted: [bold]{variant}[/bold] is now the policy of segment {segment!r}.")
    unproven = [segment for segment in SEGMENTS if segment not in finished.promoted]
    if unproven:
        say(f"Not proven yet, the experiment goes on: {', '.join(unproven)}.")
    for decision in finished.after:
        say(
            f"The next customer of {decision['segment']!r} gets {decision['variant']!r} from the"
            f" [bold]{decision['source']}[/bold] (propensity {decision['propensity']:.3f})."
        )


def _table(finished: Finished) -> Table:
    table = Table(
        title=f"Opens per message, {int(finished.n_decided.sum()):,} customers",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for name in ("segment", "variant", "true", "posterior mean (95 %)", "weight", "verdict"):
        table.add_column(name, no_wrap=True, justify="right" if name in {"true", "weight"} else "left")
    by_segment = {row["segment"]: row for row in finished.results["segments"]}
    for i, segment in enumerate(SEGMENTS):
        row = by_segment[segment]
        found = {variant["variant"]: variant for variant in row["variants"]}
        for k, key in enumerate(VARIANTS):
            is_winner = key == row["leader"]
            cells = (key, f"{TRUE_RATES[i, k]:.3f}", *_posterior(found[key]), row["verdict"] if is_winner else "")
            style = "bold" if is_winner and row["verdict"] == "ship" else None
            table.add_row(segment if k == 0 else "", *cells, style=style)
        table.add_section()
    return table


def _posterior(variant: Mapping[str, Any]) -> tuple[str, str]:
    low, high = variant["interval"]
    return f"{variant['mean']:.3f} ({low:.3f} .. {high:.3f})", f"{variant['weight']:.3f}"


def _earnings(finished: Finished) -> str:
    found = earned(finished.n_decided)
    share = (found.bandit - found.equal_split) / (found.oracle - found.equal_split)
    return (
        f"Expected opens by the true rates: bandit [bold]{found.bandit:,.0f}[/bold], equal split"
        f" {found.equal_split:,.0f}, oracle {found.oracle:,.0f}: {share:.0%} of what there was to gain."
    )
