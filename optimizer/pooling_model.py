"""The model of partial pooling in PyMC, in coordinates in which chains move freely whatever the size of the data."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    """Compile by PyTensor and sample by nutpie itself, so that no version of PyMC chooses another sampler.

    Args:
        problem: What to sample.
        seed: Of all chains.
        n_draws: Kept draws of a chain.
        n_tune: Tuning draws of a chain.
        n_chains: How many chains.
        cores: How many at a time.
        progress: Told of 0.0 at the start, 0.3 when PyMC is loaded, 0.5 compiled, 0.95 sampled. The sampler has no
            usable callback on the versions supported, and its non-blocking mode raises while it is busy.
    """
    tell = progress if progress is not None else _tell_nobody
    tell(0.0)
    with known_warnings():
        import nutpie
        import pymc  # noqa: F401 - takes seconds, which are told of

        tell(0.3)
        model = for_nutpie(problem)
        tell(0.5)
        trace = nutpie.sample(
            model,
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
    # Works on arviz 0.23 (InferenceData) and from 1.0 on (xarray's DataTree).
    log_tau, average, level_noise, noise = _parts(problem, np.asarray(trace["posterior"][_POINT], dtype=np.float64))
    tau, shift = np.exp(log_tau), np.insert(average, problem.control_index, 0.0, axis=-1)
    placed = _placed(problem, np, tau=tau, shift=shift, level_noise=level_noise, noise=noise)
    n_divergent = int(np.asarray(trace["sample_stats"]["diverging"]).sum())
    return Chains(tau, shift, placed.place, n_divergent)


_TARGET_ACCEPT = 0.95  # at the usual 0.8 three segments with tau near 0 gave 14 to 26 divergences, here none
_POINT = "point"
_NOT_FINITE = 3  # as nutpie's own densities say it: that step is a divergence, not an error


def compile_ahead() -> None:
    """Compile the densities of both kinds of data, so that no analysis has to wait for it (`_log_density`)."""
    ones = np.ones((2, 2))
    with known_warnings():
        for counts in ((ones, ones), None):
            for_nutpie(
                Problem(
                    estimate=ones,
                    precision=ones,
                    counts=counts,
                    level_centre=0.0,
                    level_sd=1.0,
                    control_index=0,
                    average_sd=1.0,
                    tau_scale=1.0,
                )
            )


def _log_density(problem: Problem) -> Any:
    """PyTensor's function of one flat point (`_shapes`): the posterior's log density there and its gradient.

    Whatever differs between problems is an input of the compiled code, nothing a constant in it. PyTensor keeps such
    code on disk, so what a machine compiles once, for 15 to 30 s, is loaded from then on, for all numbers of segments
    and variants.
    """
    import pytensor
    import pytensor.tensor as pt

    known = _as_inputs(problem)
    n_segments, n_variants = known.estimate.shape
    model = _model(known, others=_input(np.delete(np.eye(problem.estimate.shape[1]), problem.control_index, axis=0)))
    point = pt.dvector("point")
    ends = [1, n_variants, n_variants + n_segments]
    flat = [point[0], point[1 : ends[1]], point[ends[1] : ends[2]], point[ends[2] :].reshape((n_segments, n_variants))]
    logp, parts = model.logp(), model.value_vars
    gradient = pt.concatenate([part.ravel() for part in pytensor.grad(logp, parts)])
    outputs = pytensor.clone_replace([logp, gradient], dict(zip(parts, flat, strict=True)))
    return pytensor.function([point], outputs, mode="NUMBA")


def for_nutpie(problem: Problem) -> Any:
    """The density as nutpie's threads call it, without Python's lock.

    nutpie's own `compile_pymc_model` wraps a density in more code, which isn't kept: 9 s of every analysis, here 2.
    """
    import numba
    from nutpie import compile_pymc

    function = _log_density(problem)
    density, inputs = function.vm.jit_fn, tuple(shared.get_value() for shared in function.get_shared())
    n_dim = sum(math.prod(shape) for shape in _shapes(problem))
    number, numbers, handle = numba.types.uint64, numba.types.CPointer(numba.types.double), numba.types.voidptr

    def evaluate(_n: int, at: Any, gradient: Any, logp: Any, _data: Any) -> int:  # noqa: PLR0917 - nutpie calls it
        value, slopes = density(numba.carray(at, n_dim), *inputs)
        logp[0] = value.item()
        finite = np.isfinite(logp[0])
        for i in range(n_dim):
            gradient[i] = slopes[i]
            finite &= np.isfinite(slopes[i])
        return 0 if finite else _NOT_FINITE

    def keep(_n: int, _m: int, point: Any, kept: Any, _data: Any) -> int:
        for i in range(n_dim):
            kept[i] = point[i]
        return 0

    def start(seed: int) -> Floats:
        point = np.random.default_rng(seed).uniform(-1.0, 1.0, n_dim)
        point[0] += math.log(problem.tau_scale)
        return point

    return compile_pymc.CompiledPyMCModel(
        compiled_logp_func=numba.cfunc(numba.types.int64(number, numbers, numbers, numbers, handle))(evaluate),
        compiled_expand_func=numba.cfunc(numba.types.int64(number, number, numbers, numbers, handle))(keep),
        initial_point_func=start,
        shared_data={},
        user_data=np.zeros(()),
        n_expanded=n_dim,
        shape_info=([_POINT], [slice(0, n_dim)], [(n_dim,)]),
        logp_func=function,
        expand_func=None,
        dims={},
        _n_dim=n_dim,
        _shapes={_POINT: (n_dim,)},
        _coords={},
    )


def _shapes(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """Of log tau, averages, level noises and noises."""
    n_segments, n_variants = problem.estimate.shape
    return (), (n_variants - 1,), (n_segments,), (n_segments, n_variants)


def _parts(problem: Problem, points: Floats) -> list[Floats]:
    """Log tau, averages, level noises and noises of flat points; leading axes, those of chains and draws, stay."""
    shapes = _shapes(problem)
    ends = itertools.accumulate(math.prod(shape) for shape in shapes)
    leading = points.shape[:-1]
    return [
        points[..., end - math.prod(shape) : end].reshape(leading + shape)
        for shape, end in zip(shapes, ends, strict=True)
    ]


def _model(known: Problem, *, others: Any) -> Any:
    """Non-centred by what the data say: noises are standard normal in the posterior if estimates are normal.

    Given tau and averages, levels and then interactions are written as their normal posterior given the estimates, plus
    its standard deviation times a noise; the density of that change of coordinates is added back, so the model is the
    same. Without data this is the usual non-centred form, with 10^9 units it stays as easy to sample.
    """
    import pymc
    import pytensor.tensor as pt

    n_segments, n_variants = known.estimate.shape
    with pymc.Model() as model:
        tau = pymc.HalfNormal("tau", sigma=known.tau_scale)
        average = pymc.Normal("average", mu=0.0, sigma=known.average_sd, shape=(n_variants - 1,))
        level_noise = pymc.Flat("level_noise", shape=(n_segments,))
        noise = pymc.Flat("noise", shape=(n_segments, n_variants))
        shift = (average[:, None] * others).sum(axis=0)
        placed = _placed(known, pt, tau=tau, shift=shift, level_noise=level_noise, noise=noise)
        prior = -0.5 * (pt.sum((placed.level / known.level_sd) ** 2) + pt.sum(placed.interaction**2))
        change = -0.5 * (pt.sum(pt.log(placed.told)) + pt.sum(pt.log(placed.total)))
        pymc.Potential("interactions_and_levels", prior + change)
        pymc.Potential("seen", _log_likelihood(known, placed.place))
    return model


def _as_inputs(problem: Problem) -> Problem:
    """The same with PyTensor's shared variables in place of all numbers that the density is made of."""
    return Problem(
        estimate=_input(problem.estimate),
        precision=_input(problem.precision),
        counts=None if problem.counts is None else (_input(problem.counts[0]), _input(problem.counts[1])),
        level_centre=_input(problem.level_centre),
        level_sd=_input(problem.level_sd),
        control_index=problem.control_index,
        average_sd=_input(problem.average_sd),
        tau_scale=_input(problem.tau_scale),
    )


def _input(number: ArrayLike) -> Any:
    import pytensor

    array = np.asarray(number, dtype=np.float64)
    return pytensor.shared(array, shape=(None,) * array.ndim)  # lengths known when compiling would be constants


@dataclass(frozen=True, slots=True)
class _Placed:
    """What the sampled coordinates stand for, and the inverse variances that they were scaled by."""

    place: Any
    level: Any
    interaction: Any  # in units of tau
    told: Any
    total: Any


def _placed(problem: Problem, xp: Any, *, tau: Any, shift: Any, level_noise: Any, noise: Any) -> _Placed:
    """Places: once as the sampler's graph (``xp`` is PyTensor), once of draws (NumPy).

    Compiling a second function for the draws would cost more than all of them.
    """
    precision, estimate = problem.precision, problem.estimate
    tau, centre = tau[..., None, None], problem.level_centre + shift[..., None, :]
    told = 1.0 + precision * tau**2
    gain = precision / told
    total = gain.sum(axis=-1) + problem.level_sd**-2
    level = (gain * (estimate - centre)).sum(axis=-1) / total + level_noise / xp.sqrt(total)
    above = centre + level[..., None]
    interaction = gain * tau * (estimate - above) + noise / xp.sqrt(told)
    return _Placed(above + tau * interaction, level, interaction, told, total)


def _log_likelihood(problem: Problem, place: Any) -> Any:
    import pytensor.tensor as pt

    if problem.counts is None:
        return -0.5 * pt.sum(problem.precision * (problem.estimate - place) ** 2)
    n_units, responders = problem.counts
    return pt.sum(responders * place - n_units * pt.softplus(place))


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
