"""What results say of exposures: how many units met their variant, and whether that hung on the variant."""

from collections.abc import Sequence
from typing import Any

from experiments.review.answer import Detail
from experiments.tallies.exposures import Exposures
from optimizer.same_rates import same_rates

WARNING_P_VALUE = 0.001
WARNING_GAP = 0.01


def decided_detail(exposures: Exposures, *, n_segments: int) -> Detail:
    """Beside a variant's units, which are those that met it, how many were decided."""
    n_decided = exposures.with_all(exposures.n_decided, n_segments=n_segments)

    def said(row: int, index: int) -> dict[str, Any]:
        return {"n_decided": int(n_decided[row, index])}

    return said


def exposure_check(exposures: Exposures, *, variants: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The check of an answer, and a warning in words if rates differ or nothing was reported.

    Units that met their variant are comparable only if the variant does not change who meets it.
    """
    n_decided, n_exposed = exposures.n_decided.sum(axis=0), exposures.n_exposed.sum(axis=0)
    found = same_rates(exposures.n_decided, exposures.n_exposed)
    differs = found.p_value is not None and found.p_value < WARNING_P_VALUE and found.relative_gap >= WARNING_GAP
    status = "not_estimable" if found.p_value is None else "warning" if differs else "ok"
    said = {
        "event": exposures.event,
        "n_decided": int(n_decided.sum()),
        "n_exposed": int(n_exposed.sum()),
        "rate": {
            key: float(met / n) if n else None for key, met, n in zip(variants, n_exposed, n_decided, strict=True)
        },
        "p_value": found.p_value,
        "relative_gap": found.relative_gap if found.p_value is not None else None,
        "status": status,
    }
    return said, list(_warnings(said))


def _warnings(said: dict[str, Any]) -> list[str]:
    if said["n_decided"] and not said["n_exposed"]:
        return [f"No unit has met its variant: no {said['event']} is reported of any of {said['n_decided']} decisions."]
    if said["status"] == "warning":
        return [f"Variants differ in how many units met them (p = {said['p_value']:.2g}): the rest may not be alike."]
    return []
