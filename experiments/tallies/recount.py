"""recount: prove that responses and tallies equal what the raw rows give, series by series, or mend them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, bindparam, select, tuple_, update
from sqlmodel import Session

from experiments.decisions.hashing import series_of, series_range
from experiments.outcomes.attribution import DecisionRef, Hit, OutcomeRow, exposed, hits_of, is_late
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
    TallyExposure,
    TallyProduct,
    TallyResponse,
)
from experiments.tallies.moves import (
    EXACT,
    Covariates,
    Exposures,
    Products,
    Responses,
    TallyKey,
    Units,
    add_ages,
    add_covariates,
    add_exposures,
    add_products,
    add_responses,
    add_units,
    hour_of,
)
from experiments.tallies.summing import forget_days, wrong_days

CHUNK = 2_000
_MEND_SHARD = 0
_decision: Any = Decision.__table__  # type: ignore[attr-defined]  # SQLModel's type stub lacks it
_outcome: Any = Outcome.__table__  # type: ignore[attr-defined]
_attribution: Any = Attribution.__table__  # type: ignore[attr-defined]
_response: Any = Response.__table__  # type: ignore[attr-defined]

Counted = tuple[DecisionRef, bool, bool]  # a decision, whether it lacks an attribute, whether it came late


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that isn't what the raw rows give. ``where``: its table and key."""

    where: str
    stored: str
    recounted: str


@dataclass(slots=True)
class CountedUnits:
    """Changes of the tallies of units, gathered."""

    units: dict[TallyKey, Units] = field(default_factory=lambda: defaultdict(Units))
    covariates: dict[TallyKey, Covariates] = field(default_factory=lambda: defaultdict(Covariates))
    exposures: dict[TallyKey, Exposures] = field(default_factory=lambda: defaultdict(Exposures))

    def add(self, counted: Counted, *, series: SeriesMetrics, sign: int) -> None:
        """Add (sign 1) or take away (sign -1) one unit; a late one counts nowhere."""
        decision, lacks, late = counted
        if late:
            return
        is_met = series.exposure is None or decision.exposed_at is not None
        if series.exposure is not None:
            exposures = self.exposures[_key(decision, hour_of(decision.decided_at)[0])]
            exposures.n_decided += sign
            exposures.n_exposed += sign * is_met
        if is_met:
            self._add(decision, lacks=lacks, series=series, sign=sign)

    def _add(self, decision: DecisionRef, *, lacks: bool, series: SeriesMetrics, sign: int) -> None:
        hour, seconds = hour_of(decision.starts_at)
        key = _key(decision, hour)
        units = self.units[key]
        units.n_units += sign
        units.n_lacking += sign * lacks
        units.decided_seconds += sign * seconds
        covariate = series.covariate_of(decision.covariate)
        if covariate is not None:
            self.covariates[key].add_unit(covariate, is_missing=decision.covariate is None, sign=sign)


def _key(decision: DecisionRef, hour: int) -> TallyKey:
    return series_of(decision.id), decision.segment, decision.allocation_version, decision.variant, hour


@dataclass(slots=True)
class Recount:
    """What the raw rows of one series give, and where the stored rows differ."""

    series: int
    n_decisions: int = 0
    counted: CountedUnits = field(default_factory=CountedUnits)
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
    for stored in _decisions(connection, series):
        outcomes = kept_outcomes(connection, stored)
        decisions = with_exposures(stored, outcomes, metrics=metrics)
        totals = unit_totals(decisions, outcomes, metrics=metrics)
        _count(result, decisions, totals=totals, metrics=metrics)
        _compare_exposures(connection, result, stored=stored, right=decisions, mend=mend)
        _compare_responses(connection, result, ids=list(decisions), totals=totals, mend=mend)
        progress(len(decisions))
    _compare_tallies(connection, result, mend=mend)
    _compare_days(session, result, mend=mend)
    return result


def all_series(session: Session) -> list[int]:
    """The numbers of all series."""
    numbers = session.connection().execute(select(Series.__table__.c.number).order_by("number"))  # type: ignore[attr-defined]
    return list(numbers.scalars())


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


def with_exposures(
    decisions: Mapping[bytes, Counted], outcomes: Iterable[tuple[bytes, OutcomeRow]], *, metrics: SeriesMetrics
) -> dict[bytes, Counted]:
    """Decisions of one series, exposed as the outcomes that they keep say."""
    kept: dict[bytes, list[OutcomeRow]] = defaultdict(list)
    for id_, outcome in outcomes:
        kept[id_].append(outcome)
    return {
        id_: (exposed(ref, kept[id_], series=metrics), lacks, late) for id_, (ref, lacks, late) in decisions.items()
    }


def unit_totals(
    decisions: Mapping[bytes, Counted], outcomes: Iterable[tuple[bytes, OutcomeRow]], *, metrics: SeriesMetrics
) -> dict[tuple[bytes, str], UnitTotal]:
    """Each unit's totals from the outcomes that its decision keeps."""
    totals: dict[tuple[bytes, str], UnitTotal] = defaultdict(UnitTotal)
    for decision_id, outcome in outcomes:
        decision = decisions[decision_id][0]
        for hit in hits_of(outcome, decision, series=metrics):
            if counts(outcome, hit.metric) and not is_late(outcome, hit):
                totals[decision_id, key_of(outcome, hit.metric)].add(outcome, hit.metric)
    return totals


def kept_outcomes(connection: Connection, decisions: Iterable[bytes]) -> list[tuple[bytes, OutcomeRow]]:
    """The raw outcomes that are attributed to decisions, and that no correction excludes."""
    names = [name for name in OutcomeRow.__dataclass_fields__ if name != "is_future"]
    query = (
        select(_attribution.c.decision_id, *(_outcome.c[name] for name in names))
        .join(_outcome, _outcome.c.id == _attribution.c.outcome_id)
        .where(_attribution.c.decision_id.in_(decisions), _outcome.c.excluded_by.is_(None))
    )
    rows = connection.execute(query).all()
    return [(row[0], OutcomeRow(**dict(zip(names, row[1:], strict=True)))) for row in rows]


def _count(
    result: Recount,
    decisions: Mapping[bytes, Counted],
    *,
    totals: Mapping[tuple[bytes, str], UnitTotal],
    metrics: SeriesMetrics,
) -> None:
    result.n_decisions += len(decisions)
    for counted in decisions.values():
        result.counted.add(counted, series=metrics, sign=1)
    pinned = {metric.key: metric for metric in metrics.metrics}
    for id_, metric in units_of(totals.keys()):
        decision = decisions[id_][0]
        hit = Hit(decision, pinned[metric], metrics.covariate_of(decision.covariate))
        result.changes.add_unit(hit, totals=totals, sign=1)


def _compare_exposures(
    connection: Connection,
    result: Recount,
    *,
    stored: Mapping[bytes, Counted],
    right: Mapping[bytes, Counted],
    mend: bool,
) -> None:
    wrong = [id_ for id_ in stored if stored[id_] != right[id_]]
    for id_ in wrong:
        have, want = stored[id_][0].exposed_at, right[id_][0].exposed_at
        result.differences.append(Difference(f"decision {id_.hex()} exposed_at", _said(have), _said(want)))
    if mend:
        write_exposures(connection, {id_: right[id_][0].exposed_at for id_ in wrong})


def write_exposures(connection: Connection, times: Mapping[bytes, datetime | None]) -> None:
    """Store when decisions were exposed."""
    if times:
        setting = update(_decision).where(_decision.c.id == bindparam("key")).values(exposed_at=bindparam("at"))
        connection.execute(setting, [{"key": id_, "at": at} for id_, at in sorted(times.items())])


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
    counted = result.counted
    tables: list[tuple[Any, dict[Any, dict[str, Any]], dict[str, Any]]] = [
        (Tally, {key: asdict(units) for key, units in counted.units.items()}, asdict(Units())),
        (TallyCovariate, {key: asdict(one) for key, one in counted.covariates.items()}, asdict(Covariates())),
        (TallyExposure, {key: asdict(one) for key, one in counted.exposures.items()}, asdict(Exposures())),
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


def _compare_days(session: Session, result: Recount, *, mend: bool) -> None:
    """Compare the sums kept of days with the tallies; mending has them summed anew."""
    wrong = wrong_days(session, result.series)
    result.differences += [Difference(f"tally_day {key}", "other sums", "those of its hours") for key in wrong]
    if mend and wrong:
        forget_days(session, result.series)


def _add(connection: Connection, table: type[Any], *, gaps: Mapping[Any, dict[str, Any]]) -> None:
    if table is Tally:
        add_units(connection, {key: Units(**gap) for key, gap in gaps.items()}, shard=_MEND_SHARD)
    elif table is TallyCovariate:
        add_covariates(connection, {key: Covariates(**gap) for key, gap in gaps.items()}, shard=_MEND_SHARD)
    elif table is TallyExposure:
        add_exposures(connection, {key: Exposures(**gap) for key, gap in gaps.items()}, shard=_MEND_SHARD)
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
