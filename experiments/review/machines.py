"""The other reading: what results would be if machines' opens and clicks were people's, and whether it matters."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlmodel import Session, col, select

from experiments.tables import TallyResponse
from experiments.tallies.moves import MACHINES

_SHOWN: Final = ("variant", "n_responders", "mean", "interval", "probability_best", "uplift")


def has_machines(session: Session, series: int, *, metric: str) -> bool:
    """Whether machines have done anything that a metric of a series would count."""
    query = select(TallyResponse.series).where(
        TallyResponse.series == series, TallyResponse.metric == metric + MACHINES, col(TallyResponse.n_responders) != 0
    )
    return session.exec(query.limit(1)).first() is not None


def add_machines(answer: dict[str, Any], other: Mapping[str, Any] | None) -> None:
    """Put the other reading beside that of people into results: ``with_machines`` of each row, ``checks.machines``.

    Args:
        answer: Results that count people alone.
        other: The same with machines as people; None where there are none.
    """
    if other is None:
        answer["checks"]["machines"] = {"status": "ok", "n_responders": 0, "says": None}
        return
    pairs = [*zip(answer["segments"], other["segments"], strict=True), (answer["overall"], other["overall"])]
    for row, with_them in pairs:
        row["with_machines"] = [{name: one[name] for name in _SHOWN} for one in with_them["variants"]]
    differing = [row.get("segment") or "all segments" for row, with_them in pairs if _reads(row) != _reads(with_them)]
    n_people, n_all = (_n_responders(one["overall"]) for one in (answer, other))
    says = f"{_DISAGREE} {', '.join(differing)}." if differing else None
    status = "warning" if differing else "ok"
    answer["checks"]["machines"] = {"status": status, "n_responders": n_all - n_people, "says": says}
    answer["warnings"] += [] if says is None else [says]


_DISAGREE: Final = (
    "Counting what machines did (scanners' clicks, prefetched opens) would change who is best, or whether an interval"
    " excludes zero: see with_machines, in"
)


def _n_responders(row: Mapping[str, Any]) -> int:
    return sum(one["n_responders"] for one in row["variants"])


def _reads(row: Mapping[str, Any]) -> tuple[str | None, dict[str, int]]:
    """What a reader takes from a row: the variant most probably best, and the direction of each clear effect."""
    chances = {one["variant"]: one["probability_best"] for one in row["variants"]}
    known = {key: chance for key, chance in chances.items() if chance is not None}
    return max(known, key=known.__getitem__, default=None), dict(_clear(row))


def _clear(row: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for one in row["variants"]:
        interval = None if one["uplift"] is None else one["uplift"]["interval"]
        if interval is not None and not interval[0] <= 0.0 <= interval[1]:
            yield one["variant"], 1 if interval[0] > 0.0 else -1
