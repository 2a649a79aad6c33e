"""Everything that the mathematics can refuse, one class for each reason, each with a stable code."""


class OptimizerError(Exception):
    """Root of the tree; never raised itself."""

    code = "optimizer_error"


class InvalidCounts(OptimizerError):
    """Counts or sums that no experiment can have produced."""

    code = "invalid_counts"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Impossible counts: {name} {reason}.")


class InvalidPosterior(OptimizerError):
    """Parameters that define no proper posterior."""

    code = "invalid_posterior"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Improper posterior: {name} {reason}.")


class NoVariation(OptimizerError):
    """Every observed outcome is the same, so no scale can be learnt from them."""

    code = "no_variation"

    def __init__(self, n_units: float) -> None:
        super().__init__(f"The outcomes of {n_units:g} units do not vary: their variance is not estimable.")


class InvalidAllocation(OptimizerError):
    """Weights, floors or shares that cannot be turned into an allocation."""

    code = "invalid_allocation"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Impossible allocation: {name} {reason}.")


class InvalidArgument(OptimizerError):
    """A setting or an array that the method can't take."""

    code = "invalid_argument"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Invalid {name}: {reason}.")


class NotConverged(OptimizerError):
    """Markov chains that don't agree, or are worth too few draws: what they say is not to be read."""

    code = "not_converged"

    def __init__(self, r_hat: float, ess: float, *, n_divergent: int) -> None:
        super().__init__(
            f"The chains have not converged: R-hat {r_hat:.3f} (at most 1.01), effective sample size {ess:.0f} "
            f"(at least 400), {n_divergent} divergent draws (at most 3 in 1,000)."
        )
