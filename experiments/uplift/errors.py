"""What is refused about studies of uplift and their models."""

from collections.abc import Mapping, Sequence

from experiments.analyses.errors import AnalysisRefused
from experiments.errors import ExperimentsError


class TooFewUnits(AnalysisRefused):
    """Not enough matured units, or customers, of a variant to learn from and to judge by."""

    code = "too_few_units"

    def __init__(self, n_units: Mapping[str, int], *, least: int) -> None:
        said = ", ".join(f"{key}: {n:,}" for key, n in n_units.items())
        super().__init__(f"A study of uplift takes {least:,} matured units of each variant; there are {said}.")


class NoControl(AnalysisRefused):
    """Units that could get the variants could not get control."""

    code = "no_control"

    def __init__(self, control: str) -> None:
        super().__init__(f"No unit got control ({control!r}), so there is nothing that uplift could be over.")


class ConstantOutcome(AnalysisRefused):
    """All units did the same."""

    code = "constant_outcome"

    def __init__(self, metric: str, value: float) -> None:
        super().__init__(f"All units have {value:g} on metric {metric!r}: nothing to learn from.")


class PropensitiesUnknown(AnalysisRefused):
    """Decisions whose logged propensity is not that of their allocation, or that could only get one variant."""

    code = "propensities_unusable"

    def __init__(self, n_left: int, *, n_units: int, why: str) -> None:
        super().__init__(f"{n_left:,} of {n_units:,} units can't be compared: {why}.")


class FewEffectiveUnits(AnalysisRefused):
    """Units weigh so differently that few of them decide."""

    code = "few_effective_units"

    def __init__(self, variant: str, *, n_effective: float, least: float) -> None:
        super().__init__(
            f"The units of variant {variant!r}, weighed by one over their propensities, are worth {n_effective:.0f}"
            f" equal ones; it takes {least:g}."
        )


class NoAttributes(AnalysisRefused):
    """Decisions carry no attributes to target by."""

    code = "no_attributes"

    def __init__(self, wanted: Sequence[str] | None) -> None:
        asked = "any declared attribute" if wanted is None else f"any of {', '.join(wanted)}"
        super().__init__(
            f"No decision of this experiment carries {asked} with enough values, so nothing can be targeted."
        )


class UndeclaredAttributes(AnalysisRefused):
    """Attributes that were asked for and that nobody has declared."""

    code = "undeclared_attributes"

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(f"Not declared: {', '.join(map(repr, keys))}.")


class MeasuredAfterwards(AnalysisRefused):
    """Attributes that hang on the variant: they were measured after the decision, or the units were not randomised."""

    code = "attribute_after_decision"

    def __init__(self, attributes: Mapping[str, float]) -> None:
        said = ", ".join(f"{key!r} (p = {p:.2g})" for key, p in attributes.items())
        super().__init__(
            f"Differs between variants as nothing known before the decision can: {said}. Leave it out with attributes,"
            " or find out how it was measured."
        )


class MarginMissing(AnalysisRefused):
    """Costs that can't be set against outcomes."""

    code = "margin_missing"

    def __init__(self, metric: str) -> None:
        super().__init__(f"Variants cost money and metric {metric!r} is none: say what one of it is worth with margin.")


class BudgetWithoutCosts(AnalysisRefused):
    """A budget where no decision costs anything."""

    code = "budget_without_costs"

    def __init__(self) -> None:
        super().__init__(
            "A budget bounds costs per decision, and no variant has any (costs per response lower net values instead):"
            " leave budget_per_1000 out."
        )


class ModelNotFound(ExperimentsError):
    """An analysis without a stored model."""

    code = "model_not_found"

    def __init__(self, id_: str, *, why: str) -> None:
        super().__init__(f"Analysis {id_[:64]!r} has no model: {why}.")


class ModelUnreadable(ExperimentsError):
    """A stored model that holds what no model of ours does, or that another version wrote."""

    code = "model_unreadable"

    def __init__(self, why: str) -> None:
        super().__init__(f"The stored model can't be read: {why}. Run the analysis again.")
