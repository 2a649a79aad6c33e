"""The shop of the fault tests: one placement, one experiment on everyone, in effect at once; and what must hold."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session, select

from experiments.access.keys import create_key
from experiments.catalog.definition_store import put_placement
from experiments.catalog.experiment_store import put_experiment
from experiments.catalog.lifecycle import EFFECT_SECONDS, start
from experiments.database import reading, transaction
from experiments.tables import Series
from experiments.tallies.recount import Difference, all_series, recount

ACTOR = "test"
SOURCE = "key/load"
PLACEMENT = "hero"
EXPERIMENT = "exp"
_PLACEMENT: dict[str, Any] = {
    "segmentation": "everyone",
    "holdout": {"share": 0.1, "gets": "default"},
    "default": {"key": "plain", "content": {"text": "Welcome"}},
}
_EXPERIMENT: dict[str, Any] = {
    "placement": PLACEMENT,
    "goal": "click",
    "metrics": ["revenue"],
    "burn_in": 0,
    "variants": [
        {"key": "a", "content": {"text": "Hi"}, "is_control": True},
        {"key": "b", "content": {"text": "A gift"}},
    ],
}


def open_shop(engine: Engine) -> str:
    """Define and start it all; returns a key that may do everything."""
    with transaction(engine) as session:
        put_placement(session, PLACEMENT, payload=_PLACEMENT, actor=ACTOR)
        put_experiment(session, EXPERIMENT, payload=_EXPERIMENT, actor=ACTOR)
        start(session, EXPERIMENT, actor=ACTOR)
        the_series(session).opens_at -= timedelta(seconds=EFFECT_SECONDS)
        _, secret = create_key(session, SOURCE.removeprefix("key/"), scopes=["admin"], actor=ACTOR)
    return secret


def the_series(session: Session) -> Series:
    """The experiment's series."""
    return session.exec(select(Series).where(Series.experiment == EXPERIMENT)).one()


def differences(engine: Engine) -> list[Difference]:
    """Where responses and tallies are not what a recount from raw rows gives, over all series."""
    with reading(engine) as session:
        return [one for number in all_series(session) for one in recount(session, number).differences]
