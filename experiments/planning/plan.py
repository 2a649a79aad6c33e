"""Plans: what each segment needs, how many weeks that takes, and what two variants in one segment would take."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, isfinite
from typing import Any

import numpy as np
from sqlmodel import Session

from experiments.input.parsing import parse
from experiments.planning.requests import PlanRequest
from experiments.planning.tasks import Known, Task, task_of
from optimizer.planning import Baseline, power_at, price_of_looking, smallest_effect, units_per_variant


def plan(session: Session, request: object) -> dict[str, Any]:
    """How many units and weeks an experiment needs, and what given weeks can show.

    Weeks count until what the last unit needed brought has matured, and are never less than the gate ``min_days``. They
    take the present rate for granted; that of customers who stick to a variant falls with time.

    Args:
        session: May be one that only reads; numbers alone (``PlanRequest``) need no database.
        request: JSON, a ``PlanRequest``.
    Returns:
        ``segments`` (each with ``n_per_variant``, ``n_units`` of all variants, ``weeks``, ``within``: what a given time
        can show, or the ``reason`` why it is not estimable), ``weeks`` of the slowest, ``one_segment``: two variants
        with all traffic, and in words ``says``.
    Raises:
        InvalidInput: The request can't be.
        ExperimentNotFound, PlacementNotFound, DefinitionNotFound, SegmentNotFound: It names what doesn't exist.
    """
    wanted = parse(PlanRequest, request)
    task = task_of(session, wanted)
    other = _in_one_segment(task, wanted)
    known = [task.known.get(key) for key in task.segments]
    rows = [
        {"segment": key, **row}
        for key, row in zip(task.segments, _planned(known, task=task, wanted=wanted), strict=True)
    ]
    for row in rows:
        row["says"] = f"{row['segment']}: {_said(row, other)}"
    weeks = _slowest(rows)
    return {
        "experiment": wanted.experiment,
        "placement": task.placement,
        "metric": task.metric,
        "n_variants": task.n_variants,
        "smallest_effect": abs(task.effect),
        "power": task.design.power,
        "level": task.design.level,
        "looks": wanted.looks,
        "segments": rows,
        "weeks": weeks,
        "one_segment": other,
        "says": _summary(rows, weeks=weeks, other=other),
    }


def plan_experiment(session: Session, key: str) -> dict[str, Any]:
    """The plan of an experiment as it is defined.

    Raises:
        ExperimentNotFound: No such experiment.
    """
    return plan(session, {"experiment": key})


def _in_one_segment(task: Task, wanted: PlanRequest) -> dict[str, Any] | None:
    """Two variants with the traffic of all segments; None where that is the plan already, or nothing is known."""
    halves = replace(task.design, control_share=0.5, variant_share=0.5, n_comparisons=1)
    if task.as_one is None or (len(task.segments) == 1 and halves == task.design):
        return None
    (row,) = _planned([task.as_one], task=replace(task, design=halves, n_variants=2), wanted=wanted)
    return None if row["reason"] is not None else {name: row[name] for name in ("n_per_variant", "n_units", "weeks")}


def _planned(known: Sequence[Known | None], *, task: Task, wanted: PlanRequest) -> list[dict[str, Any]]:
    """One row for each segment, all planned at once."""
    reasons = [_objection(one, task) for one in known]
    able = [one for one, reason in zip(known, reasons, strict=True) if one is not None and reason is None]
    numbers = iter(_numbers(able, task=task, wanted=wanted) if able else [])
    return [
        {**_evidence(one), **(_NOTHING if reason else next(numbers)), "reason": reason}
        for one, reason in zip(known, reasons, strict=True)
    ]


_NOTHING = {"n_per_variant": None, "n_units": None, "weeks": None, "price_of_looking": None, "within": None}


def _evidence(known: Known | None) -> dict[str, Any]:
    if known is None:
        return {"baseline": None, "units_per_week": None}
    baseline = {"mean": known.mean, "sd": known.sd, "n_units": known.n_units, "from": known.source}
    return {"baseline": baseline, "units_per_week": known.units_per_week}


def _objection(known: Known | None, task: Task) -> str | None:
    """Why a segment's plan is not estimable, if it isn't."""
    if min(task.design.control_share, task.design.variant_share) == 0.0:
        return "either the control gets no units, or no other variant does"
    if known is None:
        return "no unit of the last 90 days has a matured outcome here: say a baseline and units_per_week"
    if known.mean == 0.0:
        return "nobody has responded yet, and effects are relative to the mean: say a baseline"
    variance = known.mean * (1.0 - known.mean) if known.sd is None else known.sd**2
    if variance <= 0.0:
        return "all units have answered alike: say a baseline"
    if known.sd is None and not 0.0 <= known.mean * (1.0 + task.effect) <= 1.0:
        return f"an effect of {task.effect:+.3%} would take the rate of {known.mean:g} out of the range from 0 to 1"
    return _noise(known.mean * task.effect, variance=variance)


def _noise(difference: float, *, variance: float) -> str | None:
    if variance < _MOST_NOISE * difference**2:
        return None
    return f"a difference of {difference:+.3g} is lost in the spread of the outcomes"


_MOST_NOISE = 1e13  # variance over the squared difference: beyond it no number of units would do


def _numbers(known: Sequence[Known], *, task: Task, wanted: PlanRequest) -> list[dict[str, Any]]:
    design, baseline = task.design, _baseline(known)
    n = units_per_variant(baseline, task.effect, design=design)
    prices = None if design.n_star is None else price_of_looking(baseline, task.effect, design=design)
    within = _within(known, task=task, wanted=wanted)
    rows = []
    for i, one in enumerate(known):
        n_units = ceil(float(n[i]) / design.variant_share - 1e-6)
        rows.append(
            {
                "n_per_variant": int(n[i]),
                "n_units": n_units,
                "weeks": _weeks(n_units, one, task=task),
                "price_of_looking": None if prices is None else float(prices[i]),
                "within": within[i],
            }
        )
    return rows


def _baseline(known: Sequence[Known]) -> Baseline:
    """All segments of a task have the same metric: all are rates, or none is."""
    sds = [one.sd for one in known if one.sd is not None]
    return Baseline(np.array([one.mean for one in known]), np.array(sds) if sds else None)


def _weeks(n_units: int, known: Known, *, task: Task) -> float | None:
    if known.units_per_week is None:
        return None
    return max(n_units / known.units_per_week, task.least_weeks) + task.waiting_weeks


def _within(known: Sequence[Known], *, task: Task, wanted: PlanRequest) -> list[dict[str, Any] | None]:
    """What so many units, or the matured ones of so many weeks, can show; None where there would be none."""
    matured_weeks = max(wanted.weeks - task.waiting_weeks, 0.0)
    units = [wanted.n_units or (one.units_per_week or 0.0) * matured_weeks for one in known]
    some = [i for i, n_units in enumerate(units) if n_units > 0.0]
    within: list[dict[str, Any] | None] = [None] * len(known)
    if not some:
        return within
    n, baseline = np.array([units[i] for i in some]) * task.design.variant_share, _baseline([known[i] for i in some])
    seen = smallest_effect(n, baseline, design=task.design, is_decrease=task.effect < 0.0)
    power = power_at(n, baseline, effect=task.effect, design=task.design)
    for i, size, chance in zip(some, seen.tolist(), power.tolist(), strict=True):
        within[i] = {
            "weeks": wanted.weeks if wanted.n_units is None else None,
            "n_units": units[i],
            "power": chance,
            "smallest_effect": size if isfinite(size) else None,
        }
    return within


def _slowest(rows: Sequence[dict[str, Any]]) -> float | None:
    weeks = [row["weeks"] for row in rows]
    return None if None in weeks else max(weeks)


def _said(row: dict[str, Any], other: dict[str, Any] | None) -> str:
    if row["reason"] is not None:
        return f"not estimable: {row['reason']}."
    if row["weeks"] is None:
        return f"{row['n_units']:,} units; how many weeks is not known without units_per_week."
    return _in_weeks(row["weeks"], other) + "."


def _summary(rows: Sequence[dict[str, Any]], *, weeks: float | None, other: dict[str, Any] | None) -> str:
    if weeks is not None:
        return _in_weeks(weeks, other) + "."
    if len(rows) == 1:
        return _said(rows[0], other)
    known = [row["weeks"] for row in rows if row["weeks"] is not None]
    said = f"How many weeks is not known for {len(rows) - len(known)} of {len(rows)} segments; each says why."
    return f"{said} The slowest of the others takes {_in_weeks(max(known), other)}." if known else said


def _in_weeks(weeks: float, other: dict[str, Any] | None) -> str:
    """As "31 weeks; two variants in one segment would take 5", where that is less."""
    whole = ceil(weeks)
    said = f"{whole:,} week" + ("" if whole == 1 else "s")
    if other is None or other["weeks"] is None or ceil(other["weeks"]) >= whole:
        return said
    return f"{said}; two variants in one segment would take {ceil(other['weeks']):,}"
