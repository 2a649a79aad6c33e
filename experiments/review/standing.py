"""What policies and whole programmes are worth, by the same review as experiments."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlmodel import Session, select

from experiments.catalog.serving import current_policy
from experiments.corrections.shown import correction_warnings, corrections_of
from experiments.decisions.choosing import TREATED
from experiments.errors import MetricNotMeasured, PolicyNotFound, PolicyVersionNotFound
from experiments.review.periods import by_period
from experiments.review.reading import Reading, in_domain_words, moment_of, pinned_metric, read
from experiments.review.results import reviewed
from experiments.review.strata import joined, relabelled
from experiments.review.unit_values import unit_values
from experiments.review.verdict import Rules
from experiments.tables import PolicyVersion, Series

STANDING, EXPLORING = "standing", "exploring"
PROGRAMME_METRIC = "revenue"


@in_domain_words()
def policy_results(
    session: Session,
    placement: str,
    *,
    version: int | None = None,
    metric: str | None = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """What a placement's policy earns: in each segment its standing variant against the share that keeps exploring.

    Args:
        session: May be one that only reads.
        placement: With a policy.
        version: Of the policy, also one that was rolled back; by default the newest.
        metric: By default the goal of the newest promotion.
        as_of: By default now.
    Returns:
        As ``results``, with two variants: ``standing``, and as the control ``exploring``, all the others together.
        Each segment names its ``standing_variant`` and ``experiment``; ``periods`` has each 30 days by itself.
    Raises:
        PolicyNotFound: Nothing has been promoted there, or all that was has been rolled back in that version.
        PolicyVersionNotFound: It has no such version.
        MetricNotMeasured: None of its promotions measures the metric.
    """
    policy = _policy(session, placement, version=version)
    moment = moment_of(session, as_of)
    by_series = _entries_by_series(policy)
    newest = session.get_one(Series, max(by_series))
    wanted = metric or pinned_metric(newest, None).key
    parts, lacking = [], []
    for number, entries in by_series.items():
        series = session.get_one(Series, number)
        if any(pinned["key"] == wanted for pinned in series.metrics):
            reading = read(session, series, metric=wanted, as_of=moment, segments=entries)
            parts.append(_as_two(reading, {key: entry["variant"] for key, entry in entries.items()}))
        else:
            lacking += list(entries)
    if not parts:
        raise MetricNotMeasured(wanted, measured=[pinned["key"] for pinned in newest.metrics])
    together = _joined(parts)
    answer = reviewed(together, rules=Rules(), available=np.array([True, True]))
    answer["periods"] = by_period(together, treated=STANDING, as_of=moment)
    for row in answer["segments"]:
        entry = policy.entries[row["segment"]]
        row |= {"standing_variant": entry["variant"], "experiment": entry["experiment"]}
    touching = [one for number in by_series for one in corrections_of(session, session.get_one(Series, number))]
    answer = _corrected(answer, touching)
    if lacking:
        answer["warnings"].append(
            f"{wanted} was not measured by the promotion of these segments: {', '.join(lacking)}."
        )
    head = {"placement": placement, "policy_version": policy.version, "metric": wanted, "as_of": moment.isoformat()}
    return {**head, **answer}


@in_domain_words()
def programme_results(session: Session, *, metric: str | None = None, as_of: datetime | None = None) -> dict[str, Any]:
    """What everything earns against the holdout, placement by placement.

    Money is gross: what single variants cost is not subtracted.

    Args:
        session: May be one that only reads.
        metric: By default ``revenue``.
        as_of: By default now.
    Returns:
        ``placements``: for each as ``results``, with the variants ``treated`` and, as the control, ``held_out``; its
        ``periods`` have each 30 days by itself.
    """
    wanted, moment = metric or PROGRAMME_METRIC, moment_of(session, as_of)
    query = select(Series).where(Series.kind == "programme").order_by(Series.placement)
    placements, lacking = [], []
    for series in session.exec(query).all():
        if any(pinned["key"] == wanted for pinned in series.metrics):
            reading = read(session, series, metric=wanted, as_of=moment)
            review = reviewed(reading, rules=Rules(), available=np.array([True, True]))
            if review["money"] is not None:
                review["money"]["costs"] = "not subtracted"
            periods = by_period(reading, treated=TREATED, as_of=moment)
            review = _corrected(review, corrections_of(session, series))
            placements.append({"placement": series.placement, **review, "periods": periods})
        else:
            lacking.append(series.placement)
    warnings = [f"{wanted} is not measured by these placements: {', '.join(lacking)}."] if lacking else []
    if placements or not lacking:
        return {"metric": wanted, "as_of": moment.isoformat(), "placements": placements, "warnings": warnings}
    raise MetricNotMeasured(wanted, measured=[pinned["key"] for pinned in series.metrics])


def _corrected(review: dict[str, Any], touching: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """With the corrections that touch it, each once, and a warning while one is under way."""
    by_id = {one["id"]: one for one in touching}
    corrections = [by_id[id_] for id_ in sorted(by_id)]
    return {**review, "warnings": review["warnings"] + correction_warnings(corrections), "corrections": corrections}


def _policy(session: Session, placement: str, *, version: int | None) -> PolicyVersion:
    newest = current_policy(session, placement)
    if newest is None:
        raise PolicyNotFound(placement)
    policy = newest if version is None else session.get(PolicyVersion, (placement, version))
    if policy is None:
        raise PolicyVersionNotFound(placement, version=version or 0)
    if not policy.entries:
        raise PolicyNotFound(placement, version=policy.version)
    return policy


def _entries_by_series(policy: PolicyVersion) -> Mapping[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for segment, entry in policy.entries.items():
        found[entry["series"]][segment] = entry
    return dict(sorted(found.items()))


def _as_two(reading: Reading, standing: Mapping[str, str]) -> Reading:
    """A reading of a policy's series as standing against exploring."""
    index = {key: i for i, key in enumerate(reading.strata.variants)}
    chosen = [index[standing[segment]] for segment in reading.strata.segments]
    names = STANDING, EXPLORING
    units = relabelled(reading.units, chosen, variants=names)
    matured_units = relabelled(reading.matured_units, chosen, variants=names)
    shares = {segment: weights.get(standing[segment], 0.0) for segment, weights in reading.weights.items()}
    return replace(
        reading,
        units=units,
        matured_units=matured_units,
        strata=unit_values(units, metric=reading.metric, covariate=None).strata,
        matured=unit_values(matured_units, metric=reading.metric, covariate=None).strata,
        uncapped=None,
        net=None if reading.net is None else relabelled(reading.net, chosen, variants=names),
        exposures=None,
        weights={segment: {STANDING: share, EXPLORING: 1.0 - share} for segment, share in shares.items()},
    )


def _joined(parts: list[Reading]) -> Reading:
    first, nets = parts[0], [part.net for part in parts if part.net is not None]
    rates = [part.monthly_units for part in parts if part.monthly_units is not None]
    same_money = len(nets) == len(parts) and len({part.currency for part in parts}) == 1
    units, matured_units = joined([part.units for part in parts]), joined([part.matured_units for part in parts])
    return replace(
        first,
        units=units,
        matured_units=matured_units,
        strata=unit_values(units, metric=first.metric, covariate=None).strata,
        matured=unit_values(matured_units, metric=first.metric, covariate=None).strata,
        first_hour=np.concatenate([part.first_hour for part in parts]),
        last_hour=np.concatenate([part.last_hour for part in parts]),
        n_lacking=sum(part.n_lacking for part in parts),
        n_merged=sum(part.n_merged for part in parts),
        monthly_units=sum(rates) if len(rates) == len(parts) else None,
        weights={segment: weights for part in parts for segment, weights in part.weights.items()},
        net=joined(nets) if same_money else None,
        exposures=None,
    )
