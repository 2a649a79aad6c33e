"""The winner of each segment, from what the test of a send plan has shown: no database, no clock."""

from collections.abc import Collection, Mapping
from typing import Any

from experiments.send_plans.pinned import Winner

Row = Mapping[str, Any]


def choose_winners(
    review: Mapping[str, Any], *, if_unclear: str, live: Mapping[str, Collection[str]], control: str
) -> dict[str, Winner]:
    """What each segment gets.

    A segment's own proven winner; else the proven one over all segments, unless another leads in the segment and is
    surer; where neither holds, as ``if_unclear`` says. ``best`` is the variant with the highest probability of being
    best, of the segment or over all, whichever is surer under the sceptical prior, by which few units say little. A
    broken test is not believed: control. So is one in which nobody has responded.

    Args:
        review: With ``segments`` and ``overall``, of all units and what they have answered by now.
        if_unclear: As the plan says.
        live: By segment, the variants that its units may get; the segments to choose for.
        control: Key of the control.
    """
    rows = {row["segment"]: row for row in review["segments"]}
    return {
        segment: _winner(rows[segment], review["overall"], if_unclear=if_unclear, live=keys, control=control)
        for segment, keys in live.items()
    }


def _winner(row: Row, overall: Row, *, if_unclear: str, live: Collection[str], control: str) -> Winner:
    is_broken = row["verdict"] == "broken"
    own, all_ = _leader(row, live), _leader(overall, live)
    is_surer = _sureness(row, own) >= _sureness(overall, all_)
    if row["verdict"] == "ship" and row["winner"] in live:
        return Winner(row["winner"], "clear")
    if not is_broken and overall["verdict"] == "ship" and overall["winner"] in live and (own == all_ or not is_surer):
        return Winner(overall["winner"], "clear_over_all")
    if if_unclear == "keep_splitting":
        return Winner(None, "keep_splitting")
    if if_unclear == "control" or is_broken:
        return Winner(control, "broken" if is_broken else "control")
    if own is not None and (is_surer or all_ is None):
        return Winner(own, "best")
    return Winner(control, "nothing_known") if all_ is None else Winner(all_, "best_over_all")


def _leader(row: Row, live: Collection[str]) -> str | None:
    """The variant most probably best of those that units may get; None where there is nothing to compare."""
    if row["leader"] is None:
        return None
    chances = {one["variant"]: one["probability_best"] for one in row["variants"] if one["variant"] in live}
    known = {key: chance for key, chance in chances.items() if chance is not None}
    return max(known, key=lambda key: known[key], default=None)


def _sureness(row: Row, leader: str | None) -> float:
    """How sure it is, at least, that a leader is best; 0 where the sceptical prior has another, or can't say."""
    if leader is None or leader != row["leader"]:
        return 0.0
    return max((gate["value"] for gate in row["gates"] if gate["gate"] == "probability_best"), default=0.0)
