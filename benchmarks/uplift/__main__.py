"""Learners of uplift beside other libraries', in an environment of their own; prints Markdown.

    python -m venv build/uplift && build/uplift/bin/pip install -r benchmarks/uplift/requirements.txt
    OMP_NUM_THREADS=1 build/uplift/bin/python -m benchmarks.uplift

Data, folds, seeds and the models inside (those of ``optimizer/uplift/models.py``, as regressors) are the same for all.
"""

import sys
import time
import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.uplift.contenders import CONTENDERS, Fit
from benchmarks.uplift.worlds import MAILS, Campaign, hillstrom, world
from optimizer.uplift.curves import coefficient_intervals, judged, qini
from optimizer.uplift.learners import TLearner, predicted
from optimizer.uplift.models import outcome_model
from optimizer.uplift.policy_value import difference_of, doubly_robust_scores

Floats = NDArray[np.float64]

WORLDS: Final = ("mostly linear", "by parts", "unequal propensities")
SEEDS: Final = range(101, 106)
N_LEARNT: Final = 4_000
N_FOLDS: Final = 3


def main() -> None:
    """Measure all and print the tables."""
    warnings.filterwarnings("ignore")
    for name in ("causalml", "econml", "sklift"):
        try:
            __import__(name)
        except ImportError:
            sys.exit(f"{name} is not installed: see benchmarks/uplift/__main__.py for an environment that has it.")
    _simulated()
    campaign = hillstrom()
    if campaign is None:
        print("\nHillstrom's campaign is not in ../shared/data, so it was not measured.")
        return
    for name, y in (("visit", campaign.visit), ("spend", campaign.spend)):
        print(f"\nHillstrom, {name}: Qini coefficient (raw x 1,000); value over none per 1,000 customers.\n")
        _campaign(campaign, y)


def _simulated() -> None:
    print(f"\nCorrelation with the true effect (RMSE; s): {N_LEARNT:,} units learnt, {len(SEEDS)} seeds.\n")
    print(f"| | {' | '.join(WORLDS)} |\n| --- |{' --- |' * len(WORLDS)}")
    for name, fit in CONTENDERS.items():
        cells = [_cell(fit, kind) for kind in WORLDS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _cell(fit: Fit, kind: str) -> str:
    found = np.array([_once(fit, kind, seed=seed) for seed in SEEDS])
    correlation, error, seconds = found.mean(axis=0)
    return f"{correlation:.3f} ± {found[:, 0].std(ddof=1) / np.sqrt(len(found)):.3f} ({error:.3f}; {seconds:.2f})"


def _once(fit: Fit, kind: str, *, seed: int) -> tuple[float, float, float]:
    made = world(kind, seed=seed)
    learnt = np.arange(len(made.y)) < N_LEARNT
    began = time.perf_counter()
    predict = fit(made.x[learnt], made.y[learnt], made.treated[learnt], made.propensity[learnt], seed)
    seconds = time.perf_counter() - began
    uplift, truth = predict(made.x[~learnt]), made.effect[~learnt]
    return float(np.corrcoef(uplift, truth)[0, 1]), float(np.sqrt(((uplift - truth) ** 2).mean())), seconds


def _campaign(campaign: Campaign, y: Floats) -> None:
    """Each mail against none; the policy sends each customer the mail with the highest predicted uplift, or none."""
    print("| | men's mail | women's mail | policy | s |\n| --- | --- | --- | --- | --- |")
    scores = _scores(campaign, y)
    for contender, fit in CONTENDERS.items():
        began = time.perf_counter()
        uplift = np.column_stack([_predicted(campaign, y, one, fit=fit) for one in (1, 2)])
        seconds = time.perf_counter() - began
        cells = [_qini(campaign, y, one, uplift=uplift[:, one - 1]) for one in (1, 2)]
        choice = np.column_stack([np.zeros(len(y)), uplift]).argmax(axis=1)
        print(f"| {contender} | {' | '.join(cells)} | {_value(scores, choice)} | {seconds:.1f} |", flush=True)
    for one, mail in enumerate(MAILS[1:], start=1):
        print(f"| {mail} for all | | | {_value(scores, np.full(len(y), one))} | |")


def _value(scores: Floats, choice: NDArray[np.intp]) -> str:
    gain = difference_of(scores, choice, instead_of=np.zeros_like(choice))
    return f"{1000.0 * gain.mean:.1f} [{1000.0 * gain.interval[0]:.1f}, {1000.0 * gain.interval[1]:.1f}]"


def _folds(n: int) -> NDArray[np.intp]:
    return np.random.default_rng(7).permutation(n) % N_FOLDS


def _predicted(campaign: Campaign, y: Floats, one: int, *, fit: Fit) -> Floats:  # noqa: PLR0917
    fold, uplift = _folds(len(y)), np.empty(len(y))
    for part in range(N_FOLDS):
        learnt = (fold != part) & np.isin(campaign.mail, (0, one))
        treated = campaign.mail[learnt] == one
        predict = fit(campaign.x[learnt], y[learnt], treated, np.full(int(learnt.sum()), 0.5), part)
        uplift[fold == part] = predict(campaign.x[fold == part])
    return uplift


def _qini(campaign: Campaign, y: Floats, one: int, *, uplift: Floats) -> str:  # noqa: PLR0917
    two, fold = np.isin(campaign.mail, (0, one)), _folds(len(y))
    place = np.empty(len(y))
    for part in range(N_FOLDS):
        rows = fold == part
        place[rows] = np.argsort(np.argsort(uplift[rows], kind="stable")) / rows.sum()
    units = judged(y[two], place[two], is_treated=campaign.mail[two] == one)
    found = qini(units).raw
    rng = np.random.default_rng(1)
    low, high = coefficient_intervals(units, customer=np.arange(int(two.sum())), rng=rng, n_draws=50).qini
    return f"{1000.0 * found:.2f} [{1000.0 * low:.2f}, {1000.0 * high:.2f}]"


def _scores(campaign: Campaign, y: Floats) -> Floats:
    """One judge for all: doubly robust scores by outcome models of the other folds."""
    fold, means = _folds(len(y)), np.empty((len(y), 3))
    even = np.full((len(y), 3), 1.0 / 3.0)
    for part in range(N_FOLDS):
        learnt = fold != part
        judge = TLearner(outcome_model(is_binary=False, seed=part))
        judge.fit(campaign.x[learnt], y[learnt], variant=campaign.mail[learnt], propensities=even[learnt])
        means[~learnt] = np.column_stack([predicted(one, campaign.x[~learnt]) for one in judge.fitted_])
    return doubly_robust_scores(y, campaign.mail, propensities=even, predicted=means)


if __name__ == "__main__":
    main()
