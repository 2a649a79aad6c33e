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
    surer; where neither holds, as ``if_unclear`` says. ``best`` is the leader of the segment or over all, whichever is
    surer by its probability of being best under the sceptical prior, which is low where there are few units. A broken
    test is not believed: control. So is one in which nobody has responded.

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
    is_broken, is_surer = row["verdict"] == "broken", _sureness(row) >= _sureness(overall)
    own, all_ = row["leader"], overall["leader"]
    if row["verdict"] == "ship" and own in live:
        return Winner(own, "clear")
    if not is_broken and overall["verdict"] == "ship" and all_ in live and (own == all_ or not is_surer):
        return Winner(all_, "clear_over_all")
    if if_unclear == "keep_splitting":
        return Winner(None, "keep_splitting")
    if if_unclear == "control" or is_broken:
        return Winner(control, "broken" if is_broken else "control")
    if own in live and (is_surer or all_ not in live):
        return Winner(own, "best")
    return Winner(all_, "best_over_all") if all_ in live else Winner(control, "nothing_known")


def _sureness(row: Row) -> float:
    """The probability best of a row's leader; 0 where there is nothing to compare."""
    return max((gate["value"] for gate in row["gates"] if gate["gate"] == "probability_best"), default=0.0)
