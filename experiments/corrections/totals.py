"""Units counted again from their raw outcomes: exposures, responses and tallies moved by the difference, exactly."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from sqlalchemy import Connection

from experiments.decisions.hashing import series_of
from experiments.outcomes.attribution import DecisionRef, Hit
from experiments.outcomes.responses import Changes, UnitTotal, units_of
from experiments.series import SeriesMetrics, read_series_metrics
from experiments.tallies.moves import (
    add_ages,
    add_covariates,
    add_exposures,
    add_products,
    add_responses,
    add_units,
)
from experiments.tallies.recount import (
    Counted,
    CountedUnits,
    kept_outcomes,
    read_counted,
    replace_totals,
    stored_totals,
    unit_totals,
    with_exposures,
    write_exposures,
)

_AT_ONCE = 2_000
_Totals = dict[tuple[bytes, str], UnitTotal]


def count_again(connection: Connection, ids: Collection[bytes], *, shard: int) -> None:
    """Count again when these units met their variants, and what they have answered. The decisions must be locked."""
    changes, units = Changes.none(), CountedUnits()
    for part in parts(sorted(ids), _AT_ONCE):
        before = read_counted(connection, part)
        metrics = read_series_metrics(connection, {series_of(id_) for id_ in part})
        after, right = _right(connection, before, metrics=metrics)
        stored = stored_totals(connection, part)
        moved = {id_ for id_ in before if before[id_] != after[id_]}
        wrong = {key for key in stored.keys() | right.keys() if stored.get(key) != right.get(key) or key[0] in moved}
        for decisions, totals, sign in ((before, stored, -1), (after, right, 1)):
            for id_, key in units_of(wrong):
                hit = _hit(decisions[id_][0], metrics[series_of(id_)], key=key)
                changes.add_unit(hit, totals=totals, sign=sign)
            for id_ in moved:
                units.add(decisions[id_], series=metrics[series_of(id_)], sign=sign)
        write_exposures(connection, {id_: after[id_][0].exposed_at for id_ in moved})
        replace_totals(connection, wrong, totals=right)
    add_units(connection, units.units, shard=shard)
    add_covariates(connection, units.covariates, shard=shard)
    add_exposures(connection, units.exposures, shard=shard)
    add_responses(connection, changes.responses, shard=shard)
    add_products(connection, changes.products, shard=shard)
    add_ages(connection, changes.ages, shard=shard)


def _hit(decision: DecisionRef, series: SeriesMetrics, *, key: str) -> Hit:
    pinned = next(metric for metric in series.metrics if metric.key == key)
    return Hit(decision, pinned, series.covariate_of(decision.covariate))


def _right(
    connection: Connection, decisions: Mapping[bytes, Counted], *, metrics: Mapping[int, SeriesMetrics]
) -> tuple[dict[bytes, Counted], _Totals]:
    """The decisions with the exposures that they should have, and their units' totals."""
    after: dict[bytes, Counted] = {}
    right: _Totals = {}
    for number, ids in groupby(sorted(decisions), key=series_of):
        own = {id_: decisions[id_] for id_ in ids}
        outcomes = kept_outcomes(connection, own)
        exposed_ = with_exposures(own, outcomes, metrics=metrics[number])
        after |= exposed_
        right |= unit_totals(exposed_, outcomes, metrics=metrics[number])
    return after, right


def parts(ids: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """Ids in portions: databases limit a statement's parameters."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
