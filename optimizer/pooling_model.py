"""The model of partial pooling in PyMC, in coordinates in which chains move freely whatever the size of the data."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is sampled: place_sk = level_s + average_k + interaction_sk, seen through counts or normal estimates.

    Attributes:
        estimate: Where each place seems to be, 0 where unseen, shape (n_segments, n_variants).
        precision: How surely, 0 where unseen, the same shape. With counts both only choose the coordinates.
        counts: Units and responders, each of that shape: binomial, places are log odds. None: normal estimates.
        level_centre: Prior mean of the levels.
        level_sd: Their prior standard deviation.
        control_index: Which variant's average is 0.
        average_sd: Prior standard deviation of the other averages.
        tau_scale: Scale of the half-normal prior of tau, the standard deviation of interactions.
    """

    estimate: Floats
    precision: Floats
    counts: tuple[Floats, Floats] | None
    level_centre: float
    level_sd: float
    control_index: int
    average_sd: float
    tau_scale: float


@dataclass(frozen=True, slots=True)
class Chains:
    """Draws by chain; the first two axes are chains and draws.

    Attributes:
        tau: Shape (n_chains, n_draws).
        average: Control's are 0, shape (n_chains, n_draws, n_variants).
        place: Shape (n_chains, n_draws, n_segments, n_variants).
        n_divergent: Divergent transitions after tuning.
    """

    tau: Floats
    average: Floats
    place: Floats
    n_divergent: int


def sampled(
    problem: Problem,
    *,
    seed: int,
    n_draws: int,
    n_tune: int,
    n_chains: int,
    cores: int,
    progress: Callable[[float], None] | None,
) -> Chains:
    """Compile and sample by nutpie itself, so that no version of PyMC chooses another sampler.

    Args:
        problem: What to sample.
        seed: Of all chains.
        n_draws: Kept draws of a chain.
        n_tune: Tuning draws of a chain.
        n_chains: How many chains.
        cores: How many at a time.
        progress: Told of 0.0 at the start, 0.1 when PyMC is loaded, 0.7 compiled, 0.95 sampled. The sampler has no
            usable callback on the versions supported, and its non-blocking mode raises while it is busy.
    """
    tell = progress if progress is not None else _tell_nobody
    tell(0.0)
    with known_warnings():
        import nutpie

        model = _model(problem)
        tell(0.1)
        compiled = nutpie.compile_pymc_model(model, var_names=["tau", "average"])
        tell(0.7)
        trace = nutpie.sample(
            compiled,
            draws=n_draws,
            tune=n_tune,
            chains=n_chains,
            cores=cores,
            seed=seed,
            target_accept=_TARGET_ACCEPT,
            save_warmup=False,
            progress_bar=False,
        )
    tell(0.95)
    tau, average, level_noise, noise = (_draws(trace, name) for name in ("tau", "average", "level_noise", "noise"))
    shift, placed = _placed(problem, np, tau=tau, average=average, level_noise=level_noise, noise=noise)
    n_divergent = int(np.asarray(trace["sample_stats"]["diverging"]).sum())
    return Chains(tau, shift, placed.place, n_divergent)


_TARGET_ACCEPT = 0.95  # at the usual 0.8 three segments with tau near 0 gave 14 to 26 divergences, here none


def _model(problem: Problem) -> Any:
    """Non-centred by what the data say: noises are standard normal in the posterior if estimates are normal.

    Given tau and averages, levels and then interactions are written as their normal posterior given the estimates, plus
    its standard deviation times a noise; the density of that change of coordinates is added back, so the model is the
    same. Without data this is the usual non-centred form, with 10^9 units it stays as easy to sample.
    """
    import pymc
    import pytensor.tensor

    pt: Any = pytensor.tensor  # half typed: calls of its untyped functions would each need an exception
    n_segments, n_variants = problem.estimate.shape
    with pymc.Model() as model:
        tau = pymc.HalfNormal("tau", sigma=problem.tau_scale)
        average = pymc.Normal("average", mu=0.0, sigma=problem.average_sd, shape=n_variants - 1)
        level_noise = pymc.Flat("level_noise", shape=n_segments)
        noise = pymc.Flat("noise", shape=(n_segments, n_variants))
        _, placed = _placed(problem, pt, tau=tau, average=average, level_noise=level_noise, noise=noise)
        prior = -0.5 * (pt.sum((placed.level / problem.level_sd) ** 2) + pt.sum(placed.interaction**2))
        change = -0.5 * (pt.sum(pt.log(placed.told)) + pt.sum(pt.log(placed.total)))
        pymc.Potential("interactions_and_levels", prior + change)
        pymc.Potential("seen", _log_likelihood(problem, placed.place))
    return model


@dataclass(frozen=True, slots=True)
class _Placed:
    """What the sampled coordinates stand for, and the inverse variances that they were scaled by."""

    place: Any
    level: Any
    interaction: Any  # in units of tau
    told: Any
    total: Any


def _placed(problem: Problem, xp: Any, *, tau: Any, average: Any, level_noise: Any, noise: Any) -> tuple[Any, _Placed]:
    """Averages with control's among them, and places: once as the sampler's graph (``xp`` is PyTensor), once of draws.

    Compiling a second function for the draws would cost more than all of them.
    """
    precision, estimate, control = problem.precision, problem.estimate, problem.control_index
    shift = xp.concatenate([average[..., :control], xp.zeros_like(average[..., :1]), average[..., control:]], axis=-1)
    tau, centre = tau[..., None, None], problem.level_centre + shift[..., None, :]
    told = 1.0 + precision * tau**2
    gain = precision / told
    total = gain.sum(axis=-1) + problem.level_sd**-2
    level = (gain * (estimate - centre)).sum(axis=-1) / total + level_noise / xp.sqrt(total)
    above = centre + level[..., None]
    interaction = gain * tau * (estimate - above) + noise / xp.sqrt(told)
    return shift, _Placed(above + tau * interaction, level, interaction, told, total)


def _log_likelihood(problem: Problem, place: Any) -> Any:
    import pytensor.tensor

    pt: Any = pytensor.tensor
    if problem.counts is None:
        return -0.5 * pt.sum(problem.precision * (problem.estimate - place) ** 2)
    n_units, responders = problem.counts
    return pt.sum(responders * place - n_units * pt.softplus(place))


def _draws(trace: Any, name: str) -> Floats:
    """Works on arviz 0.23 (InferenceData) and from 1.0 on (xarray's DataTree)."""
    return np.asarray(trace["posterior"][name], dtype=np.float64)


@contextmanager
def known_warnings() -> Iterator[None]:
    """What the libraries warn of by themselves, and nobody who calls us can act on."""
    with warnings.catch_warnings():
        # arviz 0.23 announces 1.0, once a day, when it is imported.
        warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
        # Wheels of PyTensor find no BLAS to link; nutpie's numba code doesn't use PyTensor's.
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS", category=UserWarning)
        yield


def _tell_nobody(_: float) -> None:
    pass
