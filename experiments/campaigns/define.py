"""What an imported campaign defines: attributes, a segmentation, metrics, a placement, the experiment itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from experiments.campaigns.log import EVERYONE_ELSE, Campaign, OutcomeValues, attribute_type, typed_values
from experiments.catalog import definition_store
from experiments.catalog.definitions import (
    COVARIATE_TYPES,
    EVERYONE,
    AttributeDefinition,
    ExperimentDefinition,
    parse_definition,
)
from experiments.errors import UnreadableCampaign


@dataclass(frozen=True, slots=True)
class Defined:
    """What the rows of a campaign refer to. ``segmentation``: key and version; ``attributes``: JSON of each row."""

    experiment: ExperimentDefinition
    segmentation: tuple[str, int]
    attributes: Mapping[str, list[Any]]


def define(session: Session, campaign: Campaign, *, key: str, placement: str, actor: str) -> Defined:
    """Define what isn't there yet; what is there stays as it is.

    Raises:
        UnreadableCampaign: A value that does not fit its attribute's declaration, a covariate without numbers, or a
            metric of another meaning.
        InvalidDefinition: A covariate that is declared not to be stored, or a constant for missing ones beyond 1e12.
    """
    declared = {name: _declare(session, name, campaign=campaign, actor=actor) for name in campaign.attributes}
    _check_covariate(campaign.covariate, declared)
    typed = {name: typed_values(name, campaign.attributes[name], definition=declared[name]) for name in declared}
    segmentation = _segmentation(session, campaign, key=key, typed=typed, actor=actor)
    for outcome in campaign.outcomes:
        _metric(session, outcome, actor=actor)
    _placement(session, placement, segmentation=segmentation[0], control=campaign.variants.keys[0], actor=actor)
    stored = {name: values for name, values in typed.items() if declared[name].stored}
    return Defined(_experiment(campaign, placement=placement), segmentation, stored)


def _declare(session: Session, name: str, *, campaign: Campaign, actor: str) -> AttributeDefinition:
    found = definition_store.find_definition(session, "attribute", key=name)
    if found is None:
        payload = {"type": attribute_type(campaign.attributes[name])}
        found = definition_store.put_attribute(session, name, payload=payload, actor=actor)
    return AttributeDefinition.model_validate(found.body)


def _check_covariate(name: str | None, declared: Mapping[str, AttributeDefinition]) -> None:
    if name is not None and declared[name].type not in COVARIATE_TYPES:
        raise UnreadableCampaign(
            f"the covariate {name!r} must hold numbers, or true and false; its values are of type {declared[name].type}"
        )


def _segmentation(
    session: Session, campaign: Campaign, *, key: str, typed: Mapping[str, list[Any]], actor: str
) -> tuple[str, int]:
    """Segments are the values of one attribute."""
    attribute = campaign.segment_attribute
    if attribute is None:
        return EVERYONE, 0
    first_row = dict(zip(reversed(campaign.segments.index), range(campaign.n_rows - 1, -1, -1), strict=True))
    segments = [
        {"key": segment, "rule": {"attribute": attribute, "eq": typed[attribute][first_row[i]]}, "description": value}
        for i, (segment, value) in enumerate(zip(campaign.segments.keys, campaign.segments.values, strict=True))
        if value is not None
    ]
    payload = {"segments": segments, "otherwise": EVERYONE_ELSE}
    return key, definition_store.put_segmentation(session, key, payload=payload, actor=actor).version


def _metric(session: Session, outcome: OutcomeValues, *, actor: str) -> None:
    found = definition_store.find_definition(session, "metric", key=outcome.key)
    if found is None:
        payload = {"event": outcome.event, "kind": outcome.kind}
        definition_store.put_metric(session, outcome.key, payload=payload, actor=actor)
    elif (found.body["event"], found.body["kind"]) != (outcome.event, outcome.kind):
        raise UnreadableCampaign(
            f"there is a metric {outcome.key!r} already, a {found.body['kind']} of the event {found.body['event']!r};"
            f" give the column another name, or import it as that"
        )


def _placement(session: Session, placement: str, *, segmentation: str, control: str, actor: str) -> None:
    if definition_store.find_definition(session, "placement", key=placement) is None:
        payload = {
            "segmentation": segmentation,
            "holdout": {"share": 0.0},
            "default": {"key": control, "content": {}},
            "description": "Made for an imported campaign.",
        }
        definition_store.put_placement(session, placement, payload=payload, actor=actor)


def _experiment(campaign: Campaign, *, placement: str) -> ExperimentDefinition:
    variants = zip(campaign.variants.keys, campaign.variants.values, strict=True)
    outcomes = [outcome.key for outcome in campaign.outcomes]
    covariate = {"attribute": campaign.covariate, "missing": campaign.covariate_missing}
    return parse_definition(
        ExperimentDefinition,
        {
            "placement": placement,
            "method": "fixed",
            "goal": outcomes[0],
            "metrics": outcomes[1:],
            "covariate": None if campaign.covariate is None else covariate,
            "gates": {"min_days": 0.0} if campaign.decided_at is None else {},  # without times it is one send
            "variants": [
                {"key": key, "content": {}, "is_control": i == 0, "description": value}
                for i, (key, value) in enumerate(variants)
            ],
            "description": "A past campaign, imported as logged.",
        },
    )
