"""What is refused about analyses."""

from experiments.errors import ExperimentsError


class AnalysisNotFound(ExperimentsError):
    """No such analysis."""

    code = "analysis_not_found"

    def __init__(self, id_: str) -> None:
        super().__init__(f"There is no analysis {id_[:64]!r}.")


class AnalysisEnded(ExperimentsError):
    """An analysis that has ended can't be cancelled."""

    code = "analysis_ended"

    def __init__(self, id_: str, *, status: str) -> None:
        super().__init__(f"Analysis {id_!r} is {status}; there is nothing to cancel.")


class AnalysisRefused(ExperimentsError):
    """An analysis that can't be made from these data; another attempt would not help."""

    code = "analysis_refused"


class NothingMatured(AnalysisRefused):
    """No unit has matured yet."""

    code = "nothing_matured"

    def __init__(self, metric: str) -> None:
        super().__init__(f"No unit has matured yet: the window and grace of metric {metric!r} have to pass first.")


class TooFewSegments(AnalysisRefused):
    """Fewer than two segments that say anything: nothing to pool."""

    code = "too_few_segments"

    def __init__(self, n_segments: int) -> None:
        super().__init__(f"Pooling takes two segments whose outcomes can be compared, and there are {n_segments}.")


class TooManySegments(AnalysisRefused):
    """More draws than memory is for."""

    code = "too_many_segments"

    def __init__(self, n_segments: int, *, n_variants: int, n_draws: int, most: int) -> None:
        super().__init__(
            f"{n_segments} segments of {n_variants} variants with {n_draws} draws are more than {most} numbers; ask for"
            " fewer draws."
        )


class TooManyAnalyses(ExperimentsError):
    """As many analyses wait or run as may, of an experiment or of all."""

    code = "too_many_analyses"

    def __init__(self, whose: str, *, n_active: int) -> None:
        super().__init__(f"{n_active} analyses of {whose} wait or run; ask again when some are done.")
