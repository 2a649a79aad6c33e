"""Units' totals counted again from their raw outcomes, and responses and tallies moved by the difference, exactly."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from sqlalchemy import Connection

from experiments.decisions.hashing import series_of
from experiments.outcomes.attribution import DecisionRef, Hit
from experiments.outcomes.responses import Changes, UnitTotal, units_of
from experiments.series import SeriesMetrics, read_series_metrics
from experiments.tallies.moves import add_ages, add_products, add_responses
from experiments.tallies.recount import Counted, read_counted, replace_totals, stored_totals, unit_totals

_AT_ONCE = 2_000
_Totals = dict[tuple[bytes, str], UnitTotal]


def count_again(connection: Connection, ids: Collection[bytes], *, shard: int) -> None:
    """Count what the units of these decisions have answered again. The decisions must be locked."""
    changes = Changes.none()
    for part in parts(sorted(ids), _AT_ONCE):
        decisions = read_counted(connection, part)
        metrics = read_series_metrics(connection, {series_of(id_) for id_ in part})
        stored, right = stored_totals(connection, part), _right(connection, decisions, metrics=metrics)
        wrong = {key for key in stored.keys() | right.keys() if stored.get(key) != right.get(key)}
        for id_, key in units_of(wrong):
            hit = _hit(decisions[id_][0], metrics[series_of(id_)], key=key)
            changes.add_unit(hit, totals=stored, sign=-1)
            changes.add_unit(hit, totals=right, sign=1)
        replace_totals(connection, wrong, totals=right)
    add_responses(connection, changes.responses, shard=shard)
    add_products(connection, changes.products, shard=shard)
    add_ages(connection, changes.ages, shard=shard)


def _hit(decision: DecisionRef, series: SeriesMetrics, *, key: str) -> Hit:
    pinned = next(metric for metric in series.metrics if metric.key == key)
    return Hit(decision, pinned, series.covariate_of(decision.covariate))


def _right(
    connection: Connection, decisions: Mapping[bytes, Counted], *, metrics: Mapping[int, SeriesMetrics]
) -> _Totals:
    right: _Totals = {}
    for number, ids in groupby(sorted(decisions), key=series_of):
        right |= unit_totals(connection, {id_: decisions[id_] for id_ in ids}, metrics=metrics[number])
    return right


def parts(ids: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """Ids in portions: databases limit a statement's parameters."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
