"""What analysts define by PUT: attributes, segmentations, placements, metrics, experiments."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from experiments.catalog.content import MAX_BYTES, Format, compile_content, template_errors
from experiments.errors import FieldError, InvalidDefinition, InvalidInput, TemplateFailed
from experiments.input.checks import KEY_PATTERN, json_errors, shown
from experiments.input.parsing import Model, parse, refuse
from experiments.segments.syntax import rule_errors

__all__ = [
    "BUILT_IN_METRICS",
    "BUILT_IN_SEGMENTATIONS",
    "COVARIATE_TYPES",
    "EVERYONE",
    "AttributeDefinition",
    "Cost",
    "Covariate",
    "Denominator",
    "ExperimentDefinition",
    "Gates",
    "Guardrail",
    "Holdout",
    "MetricDefinition",
    "PlacementDefinition",
    "PlacementVariant",
    "Prior",
    "SegmentDefinition",
    "SegmentationDefinition",
    "SendPlan",
    "VariantDefinition",
    "parse_definition",
    "window_hours",
]

EVERYONE: Final = "everyone"
MAX_CONTENT_DEPTH: Final = 20
MAX_VARIANTS: Final = 100
COVARIATE_TYPES: Final = ("number", "boolean")


def parse_definition(model: type[Model], payload: object) -> Model:
    """A definition from the JSON of a request.

    Raises:
        InvalidDefinition: With all (at most 100) that is wrong.
    """
    try:
        return parse(model, payload)
    except InvalidInput as error:
        raise InvalidDefinition(error.fields) from None


def _content(value: dict[str, Any]) -> dict[str, Any]:
    refuse(json_errors(value, max_depth=MAX_CONTENT_DEPTH, max_bytes=MAX_BYTES) or template_errors(value))
    return value


def _rule(value: object) -> object:
    refuse(rule_errors(value))
    return value


def _unique(keys: Sequence[str]) -> Sequence[str]:
    refuse(_duplicates(keys, suffix=""))
    return keys


def _duplicates(keys: Sequence[str], *, suffix: str) -> list[FieldError]:
    counts = Counter(keys)
    return [
        FieldError(f"/{i}{suffix}", f"{shown(key)} is there twice") for i, key in enumerate(keys) if counts[key] > 1
    ]


Aggregate = Literal["sum", "count"]
Event = Annotated[str, Field(min_length=1, max_length=128)]
Key = Annotated[str, Field(pattern=KEY_PATTERN)]
Keys = Annotated[tuple[Key, ...], Field(strict=False), AfterValidator(_unique)]
Description = Annotated[str, Field(max_length=2_000)]
Hours = Annotated[float, Field(gt=0, le=24 * 366)]
Share = Annotated[float, Field(ge=0, le=1)]
VariantContent = Annotated[dict[str, Any], AfterValidator(_content)]


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class AttributeDefinition(_Definition):
    """What callers say of customers: its type at every door; whether browsers may send it; whether it is kept."""

    type: Literal["string", "number", "boolean", "datetime", "strings"]
    public: bool = False
    stored: bool = True
    description: Description | None = None


class SegmentDefinition(_Definition):
    """One segment; its rule is checked for shape here, against the declared attributes by ``rules.compile_rule``."""

    key: Key
    rule: Annotated[Any, AfterValidator(_rule)]
    description: Description | None = None


def _segments(segments: tuple[SegmentDefinition, ...]) -> tuple[SegmentDefinition, ...]:
    refuse(_duplicates([segment.key for segment in segments], suffix="/key"))
    return segments


class SegmentationDefinition(_Definition):
    """Segments in order, the first whose rule matches wins; ``otherwise`` is the key of everyone else."""

    segments: Annotated[
        tuple[SegmentDefinition, ...], Field(strict=False, max_length=10_000), AfterValidator(_segments)
    ]
    otherwise: Key
    description: Description | None = None

    @model_validator(mode="after")
    def _otherwise_is_no_segment(self) -> Self:
        if self.otherwise in {segment.key for segment in self.segments}:
            refuse([FieldError("/otherwise", f"{shown(self.otherwise)} has a rule above")])
        return self


class Holdout(_Definition):
    """Customers kept out of experiments and policies of a placement: their share, and what they get."""

    share: Annotated[float, Field(ge=0, le=0.5)]
    gets: Literal["default", "nothing"] = "default"


class PlacementVariant(_Definition):
    """What a placement shows when nothing else decides; ``deliver: false`` sends nothing."""

    key: Key
    content: VariantContent
    deliver: bool = True


class PlacementDefinition(_Definition):
    """A spot where one variant is shown. The holdout has no default: it must be said."""

    channel: Key = "web"
    segmentation: Key = EVERYONE
    format: Format = "json"
    holdout: Holdout
    default: PlacementVariant
    description: Description | None = None

    @model_validator(mode="after")
    def _default_never_fails(self) -> Self:
        """What every failing template falls back to must do without any attribute."""
        try:
            compile_content(self.default.content, format=self.format).render({})
        except TemplateFailed as error:
            detail = "must render for a customer without attributes: give each name a default"
            refuse([FieldError(f"/default/content{error.pointer}", detail)])
        return self


class Denominator(_Definition):
    """What a ratio divides by: of an event, the ``sum`` of its values or the ``count`` of its outcomes."""

    event: Event
    aggregate: Aggregate = "count"


class Prior(_Definition):
    """What is expected of a unit's mean outcome before any is seen, and how many units that is worth."""

    mean: Annotated[float, Field(ge=-1e12, le=1e12)]
    n_units: Annotated[float, Field(gt=0, le=1e9)]


class MetricDefinition(_Definition):
    """What an event means.

    ``window_hours`` absent means the channel's own (see the function ``window_hours``); outcomes are accepted for
    ``grace_hours`` more. ``cap`` limits a unit's total (count, mean, numerator of a ratio). A ratio divides the sum (or
    count, by ``aggregate``) of all units by that of its ``denominator``. ``prior`` absent says next to nothing: a
    uniform one for rates, one responder's worth of the pooled mean for the others.
    """

    event: Event
    kind: Literal["binary", "count", "mean", "ratio"]
    aggregate: Aggregate | None = None
    denominator: Denominator | None = None
    prior: Prior | None = None
    window_hours: Hours | None = None
    grace_hours: Annotated[float, Field(ge=0, le=24 * 366)] = 24.0
    direction: Literal["increase", "decrease"] = "increase"
    cap: Annotated[float, Field(gt=0)] | None = None
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    description: Description | None = None

    @model_validator(mode="after")
    def _binary_has_no_amount(self) -> Self:
        wrong = []
        if self.cap is not None and self.kind == "binary":
            wrong.append(FieldError("/cap", "a binary metric is 0 or 1; there is nothing to cap"))
        if self.currency is not None and self.kind not in {"mean", "ratio"}:
            wrong.append(FieldError("/currency", f"only a mean or a ratio is money, not a {self.kind}"))
        if self.prior is not None and self.kind == "binary" and not 0.0 < self.prior.mean < 1.0:
            wrong.append(FieldError("/prior/mean", f"is {self.prior.mean}, no rate between 0 and 1"))
        if self.prior is not None and self.kind == "count" and self.prior.mean < 0.0:
            wrong.append(FieldError("/prior/mean", f"is {self.prior.mean}, and no count is below 0"))
        refuse(wrong)
        return self

    @model_validator(mode="after")
    def _only_a_ratio_divides(self) -> Self:
        wrong = []
        if self.kind == "ratio" and self.denominator is None:
            wrong.append(FieldError("/denominator", "must be said: what a ratio divides by"))
        if self.kind != "ratio":
            said = [name for name in ("denominator", "aggregate") if getattr(self, name) is not None]
            wrong += [FieldError(f"/{name}", f"only a ratio has one, not a {self.kind}") for name in said]
        refuse(wrong)
        return self


class Cost(_Definition):
    """What a variant costs, in the currency of the goal, for each response and for each decision."""

    per_response: Annotated[float, Field(ge=0)] = 0.0
    per_decision: Annotated[float, Field(ge=0)] = 0.0


class VariantDefinition(_Definition):
    """One message or offer of an experiment."""

    key: Key
    content: VariantContent
    is_control: bool = False
    cost: Cost | None = None
    deliver: bool = True
    description: Description | None = None


class Guardrail(_Definition):
    """A metric that may get worse by at most ``max_harm`` (absolute, in its units), sure at ``probability``.

    ``segments``: where it is watched; absent, in all of the experiment's.
    """

    metric: Key
    segments: Annotated[Keys, Field(min_length=1)] | None = None
    max_harm: Annotated[float, Field(ge=0)]
    probability: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Covariate(_Definition):
    """An attribute of units, known before they are decided, that predicts their outcomes (CUPED).

    ``missing``: what a unit without it counts with; a constant, so that it can't depend on the variant.
    """

    attribute: Key
    missing: Annotated[float, Field(ge=-1e12, le=1e12)] = 0.0


class Gates(_Definition):
    """What a verdict of ``ship`` demands, all of it.

    min_days: Full days of matured units; 0 asks for none (send plans).
    probability_best: At least, per segment.
    expected_loss: At most, relative to the control's mean.
    min_responders: Of each variant, before an interval counts; of rates, or what it should have had, were all alike.
    interval: Level of the always-valid interval, which must exclude zero.
    false_discovery: Share of wrong winners over the segments shipped, at most.
    effect_sd: Of the sceptical prior on the relative effect.
    """

    min_days: Annotated[float, Field(ge=0, le=366)] = 7.0
    probability_best: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    expected_loss: Annotated[float, Field(gt=0, le=1)] = 0.0025
    min_responders: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    interval: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    false_discovery: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    effect_sd: Annotated[float, Field(gt=0, le=10)] = 0.05


class SendPlan(_Definition):
    """One send to many: a share of them tests the variants, the others wait and get the winner of their segment.

    ``winner_after_hours`` count from the first decision of the test. ``if_unclear``: what is done where nothing is
    proven: ``best``, the variant most probably best; ``control``; or ``keep_splitting``.
    """

    test_share: Annotated[float, Field(gt=0, lt=1)]
    winner_after_hours: Annotated[float, Field(ge=0.001, le=24 * 31)]
    if_unclear: Literal["best", "control", "keep_splitting"] = "best"


def _variants(variants: tuple[VariantDefinition, ...]) -> tuple[VariantDefinition, ...]:
    wrong = _duplicates([variant.key for variant in variants], suffix="/key")
    if not 2 <= len(variants) <= MAX_VARIANTS:
        wrong.append(FieldError("", f"must be 2 to {MAX_VARIANTS} variants, not {len(variants)}"))
    controls = [i for i, variant in enumerate(variants) if variant.is_control]
    if not controls:
        wrong.append(FieldError("", "one variant must be the control (is_control), not none"))
    wrong += [FieldError(f"/{i}/is_control", "another variant is the control already") for i in controls[1:]]
    refuse(wrong)
    return variants


def _guardrails(guardrails: tuple[Guardrail, ...]) -> tuple[Guardrail, ...]:
    refuse(_duplicates([guardrail.metric for guardrail in guardrails], suffix="/metric"))
    return guardrails


class ExperimentDefinition(_Definition):
    """Variants that compete for a placement over some or all (absent) of its segments.

    ``burn_in`` is units per variant over all segments; ``floor`` the least weight of any variant (all floors together
    take 5 % at most), ``control_share`` of the control; after ``half_life_hours`` a unit counts half;
    ``smallest_effect`` (relative) is the least worth having; ``covariate`` narrows intervals; ``weights`` are for the
    method ``fixed`` (absent: equal). ``exposure``: the event that says that a unit met its variant (shown, delivered);
    then units count, and windows start, only there. With a ``send_plan`` the gate of ``min_days`` is 0 unless said: a
    send is over in hours.
    """

    placement: Key
    segments: Annotated[Keys, Field(min_length=1)] | None = None
    unit: Literal["customer", "occasion"] = "customer"
    method: Literal["thompson", "top_two", "fixed"] = "thompson"
    goal: Key
    metrics: Keys = ()
    guardrails: Annotated[tuple[Guardrail, ...], Field(strict=False), AfterValidator(_guardrails)] = ()
    burn_in: Annotated[int, Field(ge=0, le=1_000_000_000)] = 100
    floor: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    control_share: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    half_life_hours: Annotated[float, Field(gt=0)] | None = None
    gates: Gates = Gates()
    smallest_effect: Annotated[float, Field(gt=0, le=10)] | None = None
    covariate: Covariate | None = None
    exposure: Event | None = None
    weights: dict[Key, Share] | None = None
    send_plan: SendPlan | None = None
    variants: Annotated[tuple[VariantDefinition, ...], Field(strict=False), AfterValidator(_variants)]
    description: Description | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_send_needs_no_days(cls, given: Any) -> Any:  # JSON
        gates = given.get("gates", {}) if isinstance(given, dict) and given.get("send_plan") is not None else None
        return given if not isinstance(gates, dict) else {**given, "gates": {"min_days": 0.0, **gates}}

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.weights is None:
            return self
        keys, total = {variant.key for variant in self.variants}, sum(self.weights.values())
        wrong = [FieldError(f"/weights/{key}", "is no variant") for key in self.weights if key not in keys]
        wrong += [FieldError("/weights", f"{shown(key)} must be said") for key in sorted(keys - self.weights.keys())]
        if abs(total - 1) > 1e-9:
            wrong.append(FieldError("/weights", f"must add up to 1, not {total:.12g}"))
        if self.method != "fixed":
            wrong.append(FieldError("/weights", f"only the method fixed takes weights, not {self.method}"))
        refuse(wrong)
        return self

    @model_validator(mode="after")
    def _goal_is_said_once(self) -> Self:
        if self.goal in self.metrics:
            refuse([FieldError(f"/metrics/{self.metrics.index(self.goal)}", f"{shown(self.goal)} is the goal already")])
        return self


def window_hours(metric: MetricDefinition, *, channel: str) -> float:
    """Hours after a decision in which an outcome counts: the metric's own, else 168 by email and 72 elsewhere."""
    if metric.window_hours is not None:
        return metric.window_hours
    return 168.0 if channel == "email" else 72.0


BUILT_IN_SEGMENTATIONS: Final = {EVERYONE: SegmentationDefinition(segments=(), otherwise=EVERYONE)}
BUILT_IN_METRICS: Final = {
    "click": MetricDefinition(event="click", kind="binary"),
    "purchase": MetricDefinition(event="purchase", kind="binary"),
    "revenue": MetricDefinition(event="purchase", kind="mean"),
    "unsubscribe": MetricDefinition(event="unsubscribe", kind="binary", direction="decrease"),
}
