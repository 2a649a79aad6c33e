"""What the test of a send plan has shown so far: every unit counts, with what it has answered by now."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlmodel import Session

from experiments.catalog.definitions import ExperimentDefinition
from experiments.review.guardrails import find
from experiments.review.reading import in_domain_words, read, variants_of_series
from experiments.review.results import reviewed
from experiments.review.verdict import SMALLEST_EFFECT, Rules
from experiments.tables import Series


@in_domain_words()
def review_test(session: Session, series: Series, *, definition: ExperimentDefinition, now: datetime) -> dict[str, Any]:
    """The review of an experiment's goal that a send plan decides by.

    As ``results``, but for two things. Windows last longer than the test, so no unit has matured: all are read. They
    were split by the same weights at the same time, so they are as old as each other. And no days are asked for.

    Raises:
        ResultsImpossible: The sums contradict each other.
    """
    reading = read(session, series, metric=definition.goal, as_of=now)
    reading = replace(reading, matured=reading.strata, matured_units=reading.units)
    live = [variant.retired_at is None for variant in variants_of_series(session, series.number or 0)]
    gates = definition.gates.model_copy(update={"min_days": 0.0})
    guarded = find(session, series, definition=definition, as_of=now)
    return reviewed(
        reading,
        rules=Rules(gates, definition.smallest_effect or SMALLEST_EFFECT),
        available=guarded.available(np.array(live), segments=reading.strata.segments),
        guarded=guarded,
        depth="brief",
    )
