"""How long a review takes over the same tallies with few and with many decisions in them."""

import time
from decimal import Decimal
from typing import Final

from sqlmodel import Session

from benchmarks import world
from experiments.database import database_now, open_engine, reading, transaction
from experiments.review import results
from experiments.tables import Experiment, Series
from experiments.tallies.moves import ResponseKey, Responses, TallyKey, Units, add_responses, add_units

_N_HOURS: Final = 240
_VARIANTS: Final = ("a", "b", "c")
_REPEATS: Final = 9


def review_seconds(url: str, n_decisions: int) -> float:
    """CPU time of one experiment's results (best of 9) over ten days of hourly tallies that hold ``n_decisions``."""
    engine = open_engine(url)
    with transaction(engine) as session:
        _add_tallies(session, n_decisions)
    seconds = []
    for _ in range(_REPEATS):
        began = time.process_time()
        with reading(engine) as session:
            results(session, world.PLAIN)
        seconds.append(time.process_time() - began)
    engine.dispose()
    return min(seconds)


def _add_tallies(session: Session, n_decisions: int) -> None:
    """The same number of units, 4 % of them responding, in every hour, segment and variant."""
    connection = session.connection()
    number = session.get_one(Experiment, world.PLAIN).series or 0
    segments = session.get_one(Series, number).segments
    last_hour = int(database_now(session).timestamp() // 3_600)
    keys: list[TallyKey] = [
        (number, segment, 1, variant, last_hour - age)
        for segment in segments
        for variant in _VARIANTS
        for age in range(_N_HOURS)
    ]
    n_units = max(1, n_decisions // len(keys))
    add_units(connection, {key: Units(n_units, 0, n_units * 1_800) for key in keys}, shard=1)
    clicks = Decimal(round(0.04 * n_units))
    responses = Responses(int(clicks), clicks, clicks, clicks, clicks)
    clicked: dict[ResponseKey, Responses] = {(*key, "click"): responses for key in keys}
    add_responses(connection, clicked, shard=1)
