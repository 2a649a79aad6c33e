"""Verdicts: what may be shipped, gate by gate, from matured units only."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.catalog.definitions import Gates
from experiments.review.checks import RatioCheck
from experiments.review.contrasts import contrasts_of
from experiments.review.discovery import Discovered
from experiments.review.estimates import Estimates
from experiments.review.guardrails import UNGUARDED, SegmentGuardrails
from experiments.review.strata import Strata
from optimizer.sample_ratio import ALARM_P_VALUE
from optimizer.sequential import (
    SMALLEST_PAYERS,
    SMALLEST_RESPONDERS,
    ConfidenceSequence,
    Contrast,
    confidence_sequence,
)
from optimizer.shared_control import ScepticalEffects, sceptical_effects

Floats = NDArray[np.float64]

N_STAR = 5_000.0  # units at which the always-valid interval is tightest; never chosen from the data
SMALLEST_EFFECT = 0.01
SURE_OF_NO_DIFFERENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rules:
    """What a verdict demands of an experiment: its gates, and how small an effect is none (relative)."""

    gates: Gates = field(default_factory=Gates)
    smallest_effect: float = SMALLEST_EFFECT


@dataclass(frozen=True, slots=True)
class Evidence:
    """What verdicts are made of, by segment and (the last row) over all.

    Attributes:
        matured: Estimates of matured units.
        effects: Sceptical posterior of the relative effects.
        winner: Index of the variant with the best of them, shape (n_segments + 1,).
        probability_best: That it is truly best, at least, the same shape.
        expected_loss: What shipping it gives up of control's mean, at most, the same shape.
        alike: P(|effect| is less than the smallest worth having), shape (n_segments + 1, n_variants).
        contrast: Differences weighted so that moving weights leave them normal, shape (n_segments + 1, n_variants).
        interval: Their always-valid intervals, the same shape.
        effective_responders: What a variant's interval rests on (or control's, if fewer), the same shape; of rates, if
            that is few, what it would rest on if the two were alike.
        least_responders: How many an interval needs.
        scarcer: Of each variant, units that responded, or of a frequent rate that did not, the same shape.
        days: Full days of matured decisions, shape (n_segments + 1,).
        discovered: What the false-discovery bound says of the winners.
        base: Size of control's mean, which effects are relative to, the same shape; NaN if nothing has responded.
        prior_sd: Scale of the sceptical prior of effects, shape (n_segments + 1,).
        higher_is_better: Direction of the metric.
        is_rate: Whether the metric is binary.
    """

    matured: Estimates
    effects: ScepticalEffects
    winner: NDArray[np.intp]
    probability_best: Floats
    expected_loss: Floats
    alike: Floats
    contrast: Contrast
    interval: ConfidenceSequence
    effective_responders: Floats
    least_responders: float
    scarcer: Floats
    days: Floats
    discovered: Discovered
    base: Floats
    prior_sd: Floats
    higher_is_better: bool
    is_rate: bool


def gather(
    strata: Strata,
    matured: Estimates,
    *,
    days: Floats,
    rules: Rules,
    kind: str,
    higher_is_better: bool,
    available: NDArray[np.bool_],
) -> Evidence:
    """Work out all that the gates look at, for all segments at once."""
    matured = _never_certain(matured) if kind == "binary" else matured
    base, prior_sd = _scales(matured, least=rules.gates.effect_sd)
    effects = _effects(matured, base=base, prior_sd=prior_sd, higher_is_better=higher_is_better, available=available)
    contrast, responders = contrasts_of(strata, kind=kind, enough=max(SMALLEST_RESPONDERS, rules.gates.min_responders))
    best, least = effects.probability_best(), SMALLEST_PAYERS if kind in {"mean", "ratio"} else SMALLEST_RESPONDERS
    sequence = {"n_star": N_STAR, "level": rules.gates.interval, "least_responders": least}
    interval = confidence_sequence(contrast, n_responders=responders, control_index=strata.control, **sequence)
    p_value, compared = _of_winners(interval.p_value, effects, control=strata.control), np.isfinite(matured.mean)
    return Evidence(
        matured=matured,
        effects=effects,
        winner=effects.best,
        probability_best=best,
        expected_loss=effects.expected_loss(),
        alike=effects.probability_within(rules.smallest_effect),
        contrast=contrast,
        interval=interval,
        effective_responders=responders,
        least_responders=least,
        scarcer=_scarcer(matured, kind=kind),
        days=days,
        discovered=Discovered.of(best, p_value, compared=compared[:-1].sum(axis=1) > 1, gates=rules.gates),
        base=base,
        prior_sd=prior_sd,
        higher_is_better=higher_is_better,
        is_rate=kind == "binary",
    )


def _never_certain(matured: Estimates) -> Estimates:
    """Rates of 0 and 1, whose own variance is 0, become those of one more unit that responded and one that did not.

    Source: Agresti & Caffo (2000), The American Statistician 54(4), 280-288.
    """
    n, responders = matured.n_units, matured.n_responders
    rate = (responders + 1.0) / (n + 2.0)
    anything = responders.sum(axis=1, keepdims=True) > 0.0  # where nothing has, there is nothing to compare
    is_alike = anything & (n > 0.0) & ((responders <= 0.0) | (responders >= n))
    more = np.where(is_alike, rate * (1.0 - rate) / (n + 2.0), 0.0)
    towards = np.where(is_alike, np.where(responders > 0.0, -1.0, 1.0) / (n + 2.0), 0.0)
    both, control = more + more[:, [matured.control]], matured.control
    both[:, control] = 0.0
    return replace(
        matured,
        mean=matured.mean + towards,
        variance=matured.variance + more,
        difference=matured.difference + towards - towards[:, [control]],
        difference_variance=matured.difference_variance + both,
    )


def _of_winners(p_value: Floats, effects: ScepticalEffects, *, control: int) -> Floats:
    """Each row's p-value of its winner's difference from control; where that is control, the largest of its rivals'."""
    rivals = effects.available.copy()
    rivals[:, control] = False
    of_rivals = np.where(rivals, p_value, 0.0).max(axis=1)
    own = np.take_along_axis(p_value, effects.best[:, np.newaxis], axis=1)[:, 0]
    return np.where(effects.best == control, of_rivals, own)


def _scarcer(matured: Estimates, *, kind: str) -> Floats:
    """Units that responded or, of a frequent rate, that did not."""
    others = matured.n_units - matured.n_responders
    return np.minimum(matured.n_responders, others) if kind == "binary" else matured.n_responders


def _effects(
    matured: Estimates,
    *,
    base: Floats,
    prior_sd: Floats,
    higher_is_better: bool,
    available: NDArray[np.bool_],
) -> ScepticalEffects:
    """The sceptical posterior of effects relative to a base.

    The base only scales the prior, so it is taken as known: with its error in each effect's variance (the delta method)
    a larger effect would look less certain than a smaller one.
    """
    effect, variance = relative_effects(matured, base=base)
    return sceptical_effects(
        effect,
        variance,
        control_variance=np.nan_to_num(matured.variance[:, matured.control] / base**2),
        control_index=matured.control,
        prior_sd=prior_sd,
        higher_is_better=higher_is_better,
        available=available,
    )


def judge(
    evidence: Evidence,
    row: int,
    *,
    variants: Sequence[str],
    rules: Rules,
    ratio: RatioCheck,
    guarded: SegmentGuardrails = UNGUARDED,
) -> dict[str, Any]:
    """The verdict of one segment (the last row: over all), with its winner, its gates and the reason in words."""
    n_known = int(np.isfinite(evidence.matured.mean[row]).sum())
    if n_known < 2 and not ratio.is_broken:
        return {"verdict": "keep_running", "winner": None, "leader": None, "reason": _NO_RIVALS, "gates": []}
    if not np.isfinite(evidence.base[row]):
        verdict, reason = ("broken", _BROKEN) if ratio.is_broken else ("keep_running", _NO_OUTCOME)
        return {"verdict": verdict, "winner": None, "leader": None, "reason": reason, "gates": []}
    best = int(evidence.winner[row])
    gates = [*_gates(evidence, row, best=best, rules=rules, ratio=ratio), guarded.gate(variants[best])]
    failed = [gate for gate in gates if gate["passed"] is False]
    long_enough = not any(gate["gate"] in {"min_days", "min_responders"} for gate in failed)
    alike = _surely_alike(evidence, row)
    leader = variants[best]
    stays = best == evidence.matured.control
    if ratio.is_broken:
        verdict, reason = "broken", _BROKEN
    elif not failed:
        kept = f"{leader} (the control) is best: stay with it" if stays else f"{leader} is best"
        chance = evidence.probability_best[row]
        verdict, reason = "ship", f"{kept}, with probability {chance:.3f} at least, under a sceptical prior."
    elif long_enough and alike:
        size = f"{rules.smallest_effect:.1%}".replace(".0%", "%")
        verdict, reason = "no_difference", f"No variant differs from control by {size} of its mean or more."
    else:
        told = f"{leader} is ahead, but not proven" if _leads(evidence, row) else "No variant is known to be ahead"
        verdict, reason = "keep_running", f"{told}: " + "; ".join(map(_said, failed)) + "."
    winner = leader if verdict == "ship" else None
    return {"verdict": verdict, "winner": winner, "leader": leader, "reason": reason, "gates": gates}


_BROKEN = "Units did not come in the shares of the weights; find out why before you read on."
_NO_RIVALS = "Fewer than two variants have matured units that can be compared."
_NO_OUTCOME = "No matured unit has responded yet, so there is nothing to compare."


def _scales(matured: Estimates, *, least: float) -> tuple[Floats, Floats]:
    """What effects are relative to, and the scale of their sceptical prior.

    That is as the gate says, or as large as the largest effect is beyond doubt: a prior of 5 % can't tell two variants
    apart that both gain 300 %, it would shrink both to next to nothing. Beyond doubt is what remains of an effect less
    three standard errors.
    """
    base = _base(matured)
    effect, variance = relative_effects(matured, base=base)
    largest: Floats = np.nan_to_num(np.abs(effect) - _BEYOND_DOUBT * np.sqrt(variance), nan=0.0).max(axis=-1)
    return base, np.maximum(least, largest)


_BEYOND_DOUBT = 3.0


def _base(matured: Estimates) -> Floats:
    """Size of control's mean; where that isn't clear of zero, of the mean of all variants."""
    mean, variance = matured.mean[:, matured.control], matured.variance[:, matured.control]
    clear = np.abs(mean) > 2.0 * np.sqrt(variance)
    units = matured.n_units.sum(axis=1)
    pooled = (matured.n_units * np.nan_to_num(matured.mean)).sum(axis=1) / np.maximum(units, 1.0)
    base: Floats = np.where(clear, mean, np.where(pooled == 0.0, np.nan, pooled))
    return np.abs(base)


def relative_effects(matured: Estimates, *, base: Floats) -> tuple[Floats, Floats]:
    """Differences relative to the base, and their variances."""
    size = base[:, np.newaxis]
    effect, variance = matured.difference / size, matured.difference_variance / size**2
    return effect, np.where(variance > 0.0, variance, np.where(effect == 0.0, 0.0, np.nan))


_ROUNDING = 1e-12  # of control's mean: less is no difference


def _leads(evidence: Evidence, row: int) -> bool:
    """Whether any mean differs, and the leader is likelier to be best than by a draw of lots."""
    available = evidence.effects.available[row]
    gap = np.abs(np.nan_to_num(evidence.matured.difference[row, available]))
    differs = (gap > _ROUNDING * evidence.base[row]).any()
    return bool(differs and evidence.probability_best[row] * available.sum() > 1.0 + 1e-6)


def _surely_alike(evidence: Evidence, row: int) -> bool:
    """Whether no variant differs; where no outcome varies, equal means are no proof of that."""
    available, varies = evidence.effects.available[row], evidence.contrast.standard_error[row] > 0.0
    return bool((evidence.alike[row, available] >= SURE_OF_NO_DIFFERENCE).all() and varies.any())


def _gates(evidence: Evidence, row: int, *, best: int, rules: Rules, ratio: RatioCheck) -> list[dict[str, Any]]:
    gates, control = rules.gates, evidence.matured.control
    rivals = [int(i) for i in np.flatnonzero(evidence.effects.available[row]) if i != control]
    judged = rivals if best == control else [best]
    scarcest = _scarcest(evidence, row, judged=judged)
    best_is = float(evidence.probability_best[row])
    loss = float(evidence.expected_loss[row])
    interval, excluded = _interval(evidence, row, judged=judged)
    enough = scarcest >= gates.min_responders
    wrong, proven = float(evidence.discovered.wrong_share[row]), bool(evidence.discovered.proven[row])
    days = float(evidence.days[row])
    return [
        _gate("sample_ratio", ratio.p_value, threshold=ALARM_P_VALUE, passed=not ratio.is_broken),
        _gate("min_days", days, threshold=gates.min_days, passed=days >= gates.min_days),
        _gate("min_responders", scarcest, threshold=gates.min_responders, passed=enough),
        _gate(
            "probability_best",
            best_is,
            threshold=gates.probability_best,
            passed=best_is >= gates.probability_best,
        ),
        _gate("expected_loss", loss, threshold=gates.expected_loss, passed=loss <= gates.expected_loss),
        _gate("interval", interval, threshold=0.0, passed=enough and excluded),
        _gate("false_discovery", wrong, threshold=gates.false_discovery, passed=proven),
    ]


def _scarcest(evidence: Evidence, row: int, *, judged: Sequence[int]) -> float:
    """Responders of the scarcer of control and those judged; of rates, what it should have had, were they alike."""
    scarcer = evidence.scarcer[row]
    counted = np.minimum(scarcer[judged], scarcer[evidence.matured.control])
    if evidence.is_rate:
        counted = np.maximum(counted, evidence.effective_responders[row, judged])
    return float(counted.min(initial=np.inf))


def _gate(name: str, value: object, *, threshold: float | None, passed: bool | None) -> dict[str, Any]:
    return {"gate": name, "value": value, "threshold": threshold, "passed": passed}


def _interval(evidence: Evidence, row: int, *, judged: Sequence[int]) -> tuple[list[float | None] | None, bool]:
    """The always-valid interval nearest to zero of those judged, and whether all lie on the winner's side of it."""
    low, high = evidence.interval.low[row, judged], evidence.interval.high[row, judged]
    stays = evidence.matured.control not in judged and int(evidence.winner[row]) == evidence.matured.control
    needs_positive = evidence.higher_is_better != stays
    clearance = low if needs_positive else -high
    nearest = int(clearance.argmin())
    if not np.isfinite(clearance[nearest]):
        return None, False
    return [float(low[nearest]), float(high[nearest])], bool(clearance[nearest] > 0.0)


_IN_WORDS = {
    "min_days": "{value:.3g} of {threshold:g} full days",
    "min_responders": "{value:.0f} of {threshold:g} responders (of a frequent rate: of those who did not) in a variant",
    "probability_best": "probability best under a sceptical prior {value:.3f}, below {threshold:g}",
    "expected_loss": "expected loss {value:.2%} of the mean, above {threshold:.2%}",
    "interval": "the always-valid interval does not exclude zero",
    "guardrails": "{value}",
    "false_discovery": "share of wrong winners over the segments as sure may be {value:.3f}, above {threshold:g}",
}


def _said(gate: dict[str, Any]) -> str:
    return _IN_WORDS[gate["gate"]].format(value=gate["value"], threshold=gate["threshold"])
