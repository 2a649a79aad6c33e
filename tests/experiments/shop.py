"""A small shop for tests of the domain: the examples of the HTTP contract, put through the catalog."""

from typing import Any

from sqlmodel import Session

from experiments.catalog import definition_store, experiment_store

ACTOR = "key/ann"
SEGMENTATION: dict[str, Any] = {
    "segments": [
        {"key": "vip", "rule": {"attribute": "lifetime_value", "gte": 500}},
        {"key": "local-new", "rule": {"attribute": "country", "in": ["DE", "AT"]}},
    ],
    "otherwise": "everyone-else",
}
PLACEMENT: dict[str, Any] = {
    "channel": "email",
    "segmentation": "value",
    "format": "text",
    "holdout": {"share": 0.05, "gets": "default"},
    "default": {"key": "plain", "content": {"text": "Welcome!"}},
}
EXPERIMENT: dict[str, Any] = {
    "placement": "welcome-subject",
    "segments": ["vip", "local-new"],
    "unit": "occasion",
    "goal": "click",
    "metrics": ["purchase"],
    "guardrails": [{"metric": "unsubscribe", "max_harm": 0.002}],
    "variants": [
        {"key": "a", "content": {"text": "Hi {{ first_name | default('there') }}"}, "is_control": True},
        {"key": "b", "content": {"text": "A gift inside"}, "cost": {"per_response": 5.0}},
    ],
}


def put_shop(session: Session) -> None:
    """Attributes, the segmentation ``value`` and the placement ``welcome-subject``."""
    definition_store.put_attribute(session, "lifetime_value", payload={"type": "number"}, actor=ACTOR)
    definition_store.put_attribute(session, "country", payload={"type": "string"}, actor=ACTOR)
    definition_store.put_segmentation(session, "value", payload=SEGMENTATION, actor=ACTOR)
    definition_store.put_placement(session, "welcome-subject", payload=PLACEMENT, actor=ACTOR)


def put_experiment(session: Session, key: str = "subject-1", **changes: object) -> definition_store.Defined:
    """The contract's experiment as a draft, with changes."""
    return experiment_store.put_experiment(session, key, payload={**EXPERIMENT, **changes}, actor=ACTOR)
