"""recount: prove that responses and tallies equal what the raw rows give, series by series, or mend them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, select, tuple_
from sqlmodel import Session

from experiments.decisions.hashing import series_range
from experiments.outcomes.attribution import DecisionRef, Hit, OutcomeRow, hits_of, is_late
from experiments.outcomes.responses import Changes, UnitTotal, counts, key_of, units_of, write_totals
from experiments.series import SeriesMetrics, read_series_metrics
from experiments.tables import (
    Attribution,
    Decision,
    Outcome,
    Response,
    Series,
    Tally,
    TallyAge,
    TallyCovariate,
    TallyProduct,
    TallyResponse,
)
from experiments.tallies.moves import (
    EXACT,
    Covariates,
    Products,
    Responses,
    TallyKey,
    Units,
    add_ages,
    add_covariates,
    add_products,
    add_responses,
    add_units,
    hour_of,
)

CHUNK = 2_000
_MEND_SHARD = 0
_decision: Any = Decision.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_outcome: Any = Outcome.__table__  # type: ignore[attr-defined]
_attribution: Any = Attribution.__table__  # type: ignore[attr-defined]
_response: Any = Response.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that isn't what the raw rows give. ``where``: its table and key."""

    where: str
    stored: str
    recounted: str


@dataclass(slots=True)
class Recount:
    """What the raw rows of one series give, and where the stored rows differ."""

    series: int
    n_decisions: int = 0
    units: dict[TallyKey, Units] = field(default_factory=lambda: defaultdict(Units))
    covariates: dict[TallyKey, Covariates] = field(default_factory=lambda: defaultdict(Covariates))
    changes: Changes = field(default_factory=Changes.none)
    differences: list[Difference] = field(default_factory=list)


def recount(
    session: Session, series: int, *, mend: bool = False, progress: Callable[[int], None] = lambda _n: None
) -> Recount:
    """Recount one series.

    Args:
        session: In a transaction that sees one state of the database throughout, and writes if it is to ``mend``: what
            others commit meanwhile would be taken for a difference.
        series: Its number.
        mend: Also write what is right.
        progress: Told how many decisions each step covered.
    """
    connection = session.connection()
    metrics = read_series_metrics(connection, [series])[series]
    result = Recount(series)
    for decisions in _decisions(connection, series):
        totals = unit_totals(connection, decisions, metrics=metrics)
        _count(result, decisions, totals=totals, metrics=metrics)
        _compare_responses(connection, result, ids=list(decisions), totals=totals, mend=mend)
        progress(len(decisions))
    _compare_tallies(connection, result, mend=mend)
    return result


def all_series(session: Session) -> list[int]:
    """The numbers of all series."""
    numbers = session.connection().execute(select(Series.__table__.c.number).order_by("number"))  # type: ignore[attr-defined]
    return list(numbers.scalars())


Counted = tuple[DecisionRef, bool, bool]  # a decision, whether it lacks an attribute, whether it came late


def _decisions(connection: Connection, series: int) -> Iterator[dict[bytes, Counted]]:
    """Decisions of a series in id order, a chunk at a time."""
    low, high = series_range(series)
    query = _COUNTED.where(_decision.c.id.between(low, high)).order_by(_decision.c.id)
    rows = connection.execute(query.execution_options(yield_per=CHUNK))
    for chunk in rows.partitions():
        yield {row[0]: (DecisionRef(*row[:-2]), row[-2], row[-1]) for row in chunk}


_COUNTED = select(
    *(_decision.c[name] for name in DecisionRef.__dataclass_fields__), _decision.c.lacks_attribute, _decision.c.late
)


def read_counted(connection: Connection, ids: Collection[bytes]) -> dict[bytes, Counted]:
    """Some decisions, as their units are counted."""
    rows = connection.execute(_COUNTED.where(_decision.c.id.in_(ids)))
    return {row[0]: (DecisionRef(*row[:-2]), row[-2], row[-1]) for row in rows}


def unit_totals(
    connection: Connection, decisions: Mapping[bytes, Counted], *, metrics: SeriesMetrics
) -> dict[tuple[bytes, str], UnitTotal]:
    """Each unit's totals from the raw outcomes that are attributed to it, and that no correction excludes."""
    totals: dict[tuple[bytes, str], UnitTotal] = defaultdict(UnitTotal)
    for decision_id, outcome in _outcomes(connection, decisions):
        decision = decisions[decision_id][0]
        for hit in hits_of(outcome, decision, series=metrics):
            if counts(outcome, hit.metric) and not is_late(outcome, hit):
                totals[decision_id, key_of(outcome, hit.metric)].add(outcome, hit.metric)
    return totals


def _outcomes(connection: Connection, decisions: Iterable[bytes]) -> Iterator[tuple[bytes, OutcomeRow]]:
    names = [name for name in OutcomeRow.__dataclass_fields__ if name != "is_future"]
    query = (
        select(_attribution.c.decision_id, *(_outcome.c[name] for name in names))
        .join(_outcome, _outcome.c.id == _attribution.c.outcome_id)
        .where(_attribution.c.decision_id.in_(decisions), _outcome.c.excluded_by.is_(None))
    )
    for row in connection.execute(query).all():
        yield row[0], OutcomeRow(**dict(zip(names, row[1:], strict=True)))


def _count(
    result: Recount,
    decisions: Mapping[bytes, Counted],
    *,
    totals: Mapping[tuple[bytes, str], UnitTotal],
    metrics: SeriesMetrics,
) -> None:
    result.n_decisions += len(decisions)
    for decision, lacks, late in decisions.values():
        if not late:
            hour, seconds = hour_of(decision.decided_at)
            key = (result.series, decision.segment, decision.allocation_version, decision.variant, hour)
            units = result.units[key]
            units.n_units += 1
            units.n_lacking += lacks
            units.decided_seconds += seconds
            covariate = metrics.covariate_of(decision.covariate)
            if covariate is not None:
                result.covariates[key].add_unit(covariate, is_missing=decision.covariate is None)
    pinned = {metric.key: metric for metric in metrics.metrics}
    for id_, metric in units_of(totals.keys()):
        decision = decisions[id_][0]
        hit = Hit(decision, pinned[metric], metrics.covariate_of(decision.covariate))
        result.changes.add_unit(hit, totals=totals, sign=1)


def _compare_responses(
    connection: Connection,
    result: Recount,
    *,
    ids: list[bytes],
    totals: Mapping[tuple[bytes, str], UnitTotal],
    mend: bool,
) -> None:
    stored = stored_totals(connection, ids)
    wrong = {key for key in stored.keys() | totals.keys() if stored.get(key) != totals.get(key)}
    for id_, metric in sorted(wrong):
        key = (id_, metric)
        where = f"response {id_.hex()} {metric}"
        result.differences.append(Difference(where, _said(stored.get(key)), _said(totals.get(key))))
    if mend and wrong:
        replace_totals(connection, wrong, totals=totals)


def stored_totals(connection: Connection, ids: Collection[bytes]) -> dict[tuple[bytes, str], UnitTotal]:
    """The responses of decisions."""
    c = _response.c
    columns = c.decision_id, c.metric, c.n_outcomes, c.total, c.first_at, c.denominator
    query = select(*columns).where(c.decision_id.in_(ids))
    return {(row[0], row[1]): UnitTotal(*row[2:]) for row in connection.execute(query)}


def replace_totals(
    connection: Connection, keys: AbstractSet[tuple[bytes, str]], *, totals: Mapping[tuple[bytes, str], UnitTotal]
) -> None:
    """Let the responses of these keys be these totals; those without one go."""
    c = _response.c
    gone = sorted(keys - totals.keys())
    for start in range(0, len(gone), CHUNK):
        some = tuple_(c.decision_id, c.metric).in_(gone[start : start + CHUNK])
        connection.execute(_response.delete().where(some))
    write_totals(connection, {key: totals[key] for key in keys & totals.keys()})


def _compare_tallies(connection: Connection, result: Recount, *, mend: bool) -> None:
    """Compare sums over shards; mending adds the difference to one shard."""
    tables: list[tuple[Any, dict[Any, dict[str, Any]], dict[str, Any]]] = [
        (Tally, {key: asdict(units) for key, units in result.units.items()}, asdict(Units())),
        (TallyCovariate, {key: asdict(one) for key, one in result.covariates.items()}, asdict(Covariates())),
        (TallyResponse, {key: asdict(one) for key, one in result.changes.responses.items()}, asdict(Responses())),
        (TallyProduct, {key: asdict(one) for key, one in result.changes.products.items()}, asdict(Products())),
        (TallyAge, {key: {"n_first": n} for key, n in result.changes.ages.items()}, {"n_first": 0}),
    ]
    for table, expected, nothing in tables:
        stored = _stored(connection, table, series=result.series, names=list(nothing))
        gaps = {}
        for key in sorted(stored.keys() | expected.keys()):
            have, want = stored.get(key, nothing), expected.get(key, nothing)
            if have != want:
                result.differences.append(Difference(f"{table.__tablename__} {key}", _said(have), _said(want)))
                gaps[key] = {name: _minus(want[name], have[name]) for name in nothing}
        if mend:
            _add(connection, table, gaps=gaps)


def _add(connection: Connection, table: type[Any], *, gaps: Mapping[Any, dict[str, Any]]) -> None:
    if table is Tally:
        add_units(connection, {key: Units(**gap) for key, gap in gaps.items()}, shard=_MEND_SHARD)
    elif table is TallyCovariate:
        add_covariates(connection, {key: Covariates(**gap) for key, gap in gaps.items()}, shard=_MEND_SHARD)
    elif table is TallyResponse:
        add_responses(connection, {key: Responses(**gap) for key, gap in gaps.items()}, shard=_MEND_SHARD)
    elif table is TallyProduct:
        add_products(connection, {key: Products(**gap) for key, gap in gaps.items()}, shard=_MEND_SHARD)
    else:
        add_ages(connection, {key: gap["n_first"] for key, gap in gaps.items()}, shard=_MEND_SHARD)


def _stored(connection: Connection, table: Any, *, series: int, names: list[str]) -> dict[Any, dict[str, Any]]:
    """A tally table's rows of a series, exactly summed over shards."""
    columns = table.__table__.columns
    keys = [column for column in columns if column.primary_key and column.name != "shard"]
    query = select(*keys, *(columns[name] for name in names)).where(columns["series"] == series)
    sums: dict[Any, dict[str, Any]] = {}
    for row in connection.execute(query):
        key, values = tuple(row[: len(keys)]), dict(zip(names, row[len(keys) :], strict=True))
        have = sums.get(key)
        sums[key] = values if have is None else {name: _plus(have[name], values[name]) for name in names}
    return {key: values for key, values in sums.items() if any(values.values())}


def _plus(left: Any, right: Any) -> Any:
    return EXACT.add(left, right) if isinstance(left, Decimal) else left + right


def _minus(left: Any, right: Any) -> Any:
    return EXACT.subtract(left, right) if isinstance(left, Decimal) else left - right


def _said(value: object) -> str:
    return "nothing" if value is None else str(value)
