"""The error tree of the domain: every class has a stable ``code``; none knows of HTTP."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """What is wrong with one place of a JSON document; ``pointer`` is RFC 6901, "" the whole document."""

    pointer: str
    detail: str


class ExperimentsError(Exception):
    """Anything that the domain refuses; ``fields`` names the places of its input that are wrong."""

    code: ClassVar[str] = "experiments_error"
    fields: tuple[FieldError, ...] = ()


class InvalidInput(ExperimentsError):
    """A value that no door lets in: a bad id, or JSON that the databases cannot hold."""

    code = "invalid_input"

    def __init__(self, fields: Iterable[FieldError]) -> None:
        self.fields = tuple(fields)
        super().__init__("; ".join(f"{pointer or 'the document'}: {detail}" for pointer, detail in self.fields[:5]))


class InvalidDefinition(InvalidInput):
    """A definition that cannot be used; all that is wrong with it is in ``fields``."""

    code = "invalid_definition"


class InvalidTemplate(InvalidDefinition):
    """Content with a template that does more than templates may."""

    code = "invalid_template"


class TemplateFailed(ExperimentsError):
    """A template could not be rendered for this customer; serve the placement's default content."""

    code = "template_failed"

    def __init__(self, pointer: str, *, reason: str) -> None:
        self.pointer = pointer
        super().__init__(f"The template at {pointer!r} failed: {reason}.")


class UnusableDatabase(ExperimentsError):
    """A database or file system on which the service cannot promise what it promises."""

    code = "unusable_database"


class UnusableConfig(ExperimentsError):
    """A setting with a value that can't be."""

    code = "unusable_config"


class DatabaseAway(ExperimentsError):
    """The database does not answer."""

    code = "database_away"

    def __init__(self) -> None:
        super().__init__("The database does not answer; try again.")


class JournalBusy(ExperimentsError):
    """The journal can't take or finish the rows now; ask again in a second."""

    code = "busy"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Nothing was acknowledged: {reason}. Try again.")


class RowRefused(ExperimentsError):
    """The database refuses this very row."""

    code = "row_refused"

    def __init__(self, kind: str) -> None:
        super().__init__(f"The database refuses this row of {kind}.")


class SnapshotMissing(ExperimentsError):
    """The process has not been able to read the definitions yet."""

    code = "not_ready"

    def __init__(self) -> None:
        super().__init__("The service has not read its definitions yet; try again.")


class PlacementNotFound(ExperimentsError):
    """No such placement."""

    code = "placement_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no placement {key!r}.")


class VariantNotFound(ExperimentsError):
    """No such variant."""

    code = "variant_not_found"

    def __init__(self, key: str, *, placement: str) -> None:
        super().__init__(f"Placement {placement!r} has no variant {key!r}.")


class ExperimentVariantNotFound(ExperimentsError):
    """No such variant in an experiment."""

    code = "experiment_variant_not_found"

    def __init__(self, key: str, *, experiment: str) -> None:
        super().__init__(f"Experiment {experiment!r} has no variant {key!r}.")


class DefinitionNotFound(ExperimentsError):
    """No such attribute, segmentation or metric."""

    code = "definition_not_found"

    def __init__(self, kind: str, *, key: str) -> None:
        super().__init__(f"There is no {kind} {key!r}.")


class DecisionNotFound(ExperimentsError):
    """No such decision is stored."""

    code = "decision_not_found"

    def __init__(self, decision_id: str) -> None:
        super().__init__(f"No decision {decision_id[:64]!r} is stored.")


class ExperimentNotFound(ExperimentsError):
    """No such experiment."""

    code = "experiment_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no experiment {key!r}.")


class PreconditionFailed(ExperimentsError):
    """Somebody changed it since the caller read it: ``current`` is its version now, None if it does not exist."""

    code = "precondition_failed"

    def __init__(self, subject: str, *, wanted: int, current: int | None) -> None:
        now = "does not exist" if current is None else f"is at version {current}"
        super().__init__(f"{subject} {now}, not at version {wanted}; read it again.")
        self.current = current


class ExperimentNotDraft(ExperimentsError):
    """A definition that is frozen since its experiment started."""

    code = "experiment_not_draft"

    def __init__(self, key: str, *, status: str) -> None:
        super().__init__(
            f"Experiment {key!r} is {status}; its definition is frozen. Correct a variant's content, append or retire"
            " variants, or conclude it and start another experiment."
        )


class WrongState(ExperimentsError):
    """An experiment whose status does not allow what was asked for."""

    code = "wrong_state"

    def __init__(self, key: str, *, status: str, allowed: Iterable[str]) -> None:
        super().__init__(f"Experiment {key!r} is {status}; it must be {' or '.join(allowed)} for this.")
        self.status = status


class SegmentTaken(ExperimentsError):
    """Another experiment runs, or is paused, on the same placement and segments."""

    code = "segment_taken"

    def __init__(self, placement: str, *, experiment: str, segments: Sequence[str]) -> None:
        named = ", ".join(segments[:5]) + (f" and {len(segments) - 5} more" if len(segments) > 5 else "")
        super().__init__(f"Experiment {experiment!r} has these segments of placement {placement!r}: {named}.")
        self.experiment = experiment
        self.segments = tuple(segments)


class PlacementInUse(ExperimentsError):
    """A change that would reach a placement's running experiments."""

    code = "placement_in_use"

    def __init__(self, key: str, *, field: str, experiments: Sequence[str]) -> None:
        named = ", ".join(map(repr, experiments[:5]))
        super().__init__(f"The {field} of placement {key!r} can't change before these experiments conclude: {named}.")


class VariantStays(ExperimentsError):
    """A variant that can't be retired."""

    code = "variant_stays"

    def __init__(self, key: str, *, reason: str) -> None:
        super().__init__(f"Variant {key!r} can't be retired: {reason}.")


class VariantNotPaused(ExperimentsError):
    """A variant that no guardrail has paused, so that nothing can be lifted."""

    code = "variant_not_paused"

    def __init__(self, key: str, *, reason: str) -> None:
        super().__init__(f"Variant {key!r} can't be let back: {reason}.")


class ResultsImpossible(ExperimentsError):
    """Tallies that no experiment can have produced, so that nothing is estimable from them."""

    code = "results_impossible"

    def __init__(self, reason: str) -> None:
        super().__init__(f"There are no results: {reason} `optimizer recount` tells whether tallies are right.")


class CorrectionNotFound(ExperimentsError):
    """No such correction."""

    code = "correction_not_found"

    def __init__(self, id_: str) -> None:
        super().__init__(f"There is no correction {id_[:64]!r}.")


class CorrectionReverted(ExperimentsError):
    """A correction that has been taken back already."""

    code = "correction_reverted"

    def __init__(self, id_: int, *, status: str) -> None:
        super().__init__(f"Correction {id_} is {status}; it must be applying or applied for this.")


class OutcomesMoved(ExperimentsError):
    """Another process attributed outcomes, or went on with their correction, meanwhile."""

    code = "outcomes_moved"

    def __init__(self) -> None:
        super().__init__("Outcomes moved while a correction reached them; nothing was written. It is tried again.")


class KeyNotFound(ExperimentsError):
    """No such API key."""

    code = "key_not_found"

    def __init__(self, id_: str) -> None:
        super().__init__(f"There is no key with the id {id_!r}.")


class TooManyKeys(ExperimentsError):
    """A name that has two live keys, the old and the new one of a rotation, already."""

    code = "too_many_keys"

    def __init__(self, name: str) -> None:
        super().__init__(f"There are two live keys named {name!r}; revoke one first.")


class OverrideNotFound(ExperimentsError):
    """A customer without an override."""

    code = "override_not_found"

    def __init__(self, placement: str) -> None:
        super().__init__(f"The customer has no override on placement {placement!r}.")


class LeaseLost(ExperimentsError):
    """Another process has taken over the job meanwhile."""

    code = "lease_lost"

    def __init__(self, name: str) -> None:
        super().__init__(f"Another process has taken over the lease {name!r}; nothing was written.")


class UnreadableCampaign(ExperimentsError):
    """The log of a past campaign that can't be taken; the message names the row."""

    code = "unreadable_campaign"


class ExperimentExists(ExperimentsError):
    """An experiment of this name is there already."""

    code = "experiment_exists"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is an experiment {key!r} already; import under another key.")


class SeriesNotFound(ExperimentsError):
    """No such series."""

    code = "series_not_found"

    def __init__(self, number: int) -> None:
        super().__init__(f"There is no series {number}.")


class MetricNotMeasured(ExperimentsError):
    """A metric that the series does not measure."""

    code = "metric_not_measured"

    def __init__(self, key: str, *, measured: Sequence[str]) -> None:
        super().__init__(f"Metric {key!r} is not measured here; these are: {', '.join(measured[:20])}.")


class SegmentNotFound(ExperimentsError):
    """A segment that the series does not cover."""

    code = "segment_not_found"

    def __init__(self, key: str, *, subject: str) -> None:
        super().__init__(f"{subject} has no segment {key!r}.")


class PromotionRefused(ExperimentsError):
    """Segments whose verdict does not allow what was to be promoted; ``fields`` says why for each."""

    code = "promotion_refused"

    def __init__(self, key: str, *, fields: Iterable[FieldError]) -> None:
        self.fields = tuple(fields)
        why = " ".join(f"{pointer}: {detail}" for pointer, detail in self.fields[:5]) or "It has no segment left."
        super().__init__(f"Nothing of experiment {key!r} was promoted. {why}")


class PolicyVersionNotFound(ExperimentsError):
    """No such version of a placement's policy."""

    code = "policy_version_not_found"

    def __init__(self, placement: str, *, version: int) -> None:
        super().__init__(f"The policy of placement {placement!r} has no version {version}.")


class NothingBefore(ExperimentsError):
    """A roll-back of a policy that already is as it was before the first promotion."""

    code = "nothing_before"

    def __init__(self, placement: str) -> None:
        super().__init__(f"The policy of placement {placement!r} is back at version 0: there is nothing before it.")


class PolicyNotFound(ExperimentsError):
    """A placement without a policy, or with a version of it in which all was rolled back."""

    code = "policy_not_found"

    def __init__(self, placement: str, *, version: int | None = None) -> None:
        back = f"Version {version} of the policy of placement {placement!r} rolled all back; ask for an earlier one."
        super().__init__(f"Nothing has been promoted on placement {placement!r} yet." if version is None else back)


class DemoFailed(ExperimentsError):
    """The demo can't go on; ``said`` is what its server wrote."""

    code = "demo_failed"

    def __init__(self, reason: str, *, said: str = "") -> None:
        super().__init__(f"The demo failed: {reason}." + (f" Its server wrote:\n{said[-2_000:]}" if said else ""))


class ExportNotWritten(ExperimentsError):
    """A file could not be written: no such folder, no permission, or no space left."""

    code = "export_not_written"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The file could not be written: {reason}.")
