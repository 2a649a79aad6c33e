"""All that a worker needs to decide, in memory, immutable, swapped whole: compiled rules, weights, policies, keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.catalog.content import Content
from experiments.catalog.definitions import AttributeDefinition, PlacementDefinition
from experiments.decisions.hashing import ShareHash, UnitHash, Wheel
from experiments.mail_events.signatures import Trust
from experiments.segments.rules import Segmentation
from experiments.series import PinnedCovariate

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """A variant ready to be served."""

    key: str
    content: Content
    deliver: bool
    is_retired: bool = False


@dataclass(frozen=True, slots=True)
class SendTest:
    """Who is in the test of a send plan that has no winner yet. ``decide_after``: None before the test has begun."""

    hash: ShareHash
    share: float
    lasts_seconds: float
    decide_after: float | None

    def has(self, unit: tuple[str, ...]) -> bool:
        """Whether a unit is in the test."""
        return self.hash(*unit) < self.share

    def winner_due(self, now: float) -> float:
        """When the winner is due, at the earliest: before the test has begun, as if it began now."""
        return now + self.lasts_seconds if self.decide_after is None else self.decide_after


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """A series ready to decide. Times are seconds since 1970 on the database's clock.

    ``paused``: segments and variants whose units get the control instead. ``send_test``: None once there is a winner.
    ``has_exposure``: units count only once they are reported to have met their variant.
    """

    number: int
    kind: str
    placement: str
    experiment: str | None
    unit: str
    hash: UnitHash
    opens_at: float
    closes_at: float
    closed_segments: Mapping[str, float]
    returned_segments: Mapping[str, float]
    segmentation: Segmentation
    segments: frozenset[str]
    wheels: Mapping[str, tuple[int, Wheel]]
    variants: Mapping[str, VariantPlan]
    control: str
    covariate: PinnedCovariate | None = None
    paused: frozenset[tuple[str, str]] = frozenset()
    send_test: SendTest | None = None
    has_exposure: bool = False

    def is_open(self, segment: str, now: float) -> bool:
        """Whether the series decides for a segment at a moment."""
        left = self.closed_segments.get(segment, FOREVER)
        is_with_it = segment in self.segments and self.returned_segments.get(segment, now) <= now < left
        return is_with_it and self.opens_at <= now < self.closes_at


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of a placement's policy: by the segmentation it was promoted under, each segment's series."""

    version: int
    effective_at: float
    entries: tuple[tuple[Segmentation, Mapping[str, SeriesPlan]], ...]


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """A placement ready to decide. ``policies``: the newest first; the first in effect counts."""

    key: str
    definition: PlacementDefinition
    segmentation: Segmentation
    default: VariantPlan
    experiments: tuple[SeriesPlan, ...]
    policies: tuple[Policy, ...]
    programme: SeriesPlan

    @property
    def is_static(self) -> bool:
        """Whether everybody gets the default: nothing runs, nothing was promoted, nobody is held out."""
        return not (self.experiments or self.policies or self.definition.holdout.share > 0)

    def policy_at(self, now: float) -> Policy | None:
        """The policy in effect at a moment."""
        return next((policy for policy in self.policies if policy.effective_at <= now), None)


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """An API key: name, the SHA-256 of its secret, scopes, until when it works, its own quota (None: the setting's).

    A publishable one has ``origins``: only their pages may use it, and report only its ``events``.
    """

    id: str
    name: str
    secret_hash: bytes
    scopes: frozenset[str]
    expires_at: float
    origins: frozenset[str] | None = None
    events: frozenset[str] = frozenset()
    rate_limit: str | None = None


@dataclass(frozen=True, slots=True)
class IntakePlan:
    """Where a sender's webhooks come in. ``events``: what each kind is called here; None is not recorded."""

    key: str
    provider: str
    trust: Trust
    events: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it, as of one version of the workspace; ``origins``: of all publishable keys.

    ``has_people``: whether any customer has several ids, or attributes of their own.
    """

    version: int
    holdout_secret: bytes
    attributes: Mapping[str, AttributeDefinition]
    placements: Mapping[str, PlacementPlan]
    overrides: Mapping[tuple[str, str], str]
    keys: Mapping[str, KeyPlan]
    origins: frozenset[str]
    has_people: bool
    intakes: Mapping[str, IntakePlan]
