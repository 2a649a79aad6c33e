"""Differences from control that stay normal as weights move, and how many responders each of them is worth."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from experiments.review.strata import Strata
from optimizer.adaptive_contrast import adaptive_contrast, effective_amounts, effective_responders, rates_if_alike
from optimizer.sequential import SMALLEST_RESPONDERS, Contrast

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def contrasts_of(strata: Strata, *, kind: str, enough: int) -> tuple[Contrast, Floats]:
    """Differences from control by segment and over all, and the responders that they are worth.

    A stratum is a day of one version; what is expected of it is the pooled mean of the segment's earlier strata.

    Args:
        strata: Of matured units.
        kind: Of the metric.
        enough: Responders, below which a rate counts with what it should have had, were variant and control alike.
    """
    everything = [one.reshape(1, -1, one.shape[-1]) for one in (strata.overall or strata).layers()]
    found = [
        _contrast(layers, control=strata.control, kind=kind, enough=enough) for layers in (strata.layers(), everything)
    ]
    contrasts, responders = zip(*found, strict=True)
    names = ("estimate", "standard_error", "n_units")
    stacked = (np.concatenate([getattr(one, name) for one in contrasts]) for name in names)
    return Contrast(*stacked), np.concatenate(responders)


def amounts_cancel(responders: Floats, total: Floats) -> Flags:
    """Whether amounts of both signs cancel, so that their sum says nothing of how many are large, shape (...).

    Gains and losses about zero sum up to few equal amounts, however many and alike they are. Their cells then are
    often negative; those of sales hardly ever are, in spite of refunds.

    Args:
        responders: Of each cell, shape (..., n_strata, n_variants).
        total: Sum of their amounts, the same shape.
    """
    cells, negative = ((responders > 0.0) & chosen for chosen in (np.True_, total < 0.0))
    often: Flags = negative.sum(axis=(-2, -1)) > _OFTEN * cells.sum(axis=(-2, -1))
    return often


_OFTEN = 0.05


def _contrast(layers: Sequence[Floats], *, control: int, kind: str, enough: int) -> tuple[Contrast, Floats]:
    count, total, squares, responders, propensity, predicted = layers
    contrast = adaptive_contrast(
        count, total, sum_squares=squares, propensity=propensity, predicted=predicted, control_index=control
    )
    effective = effective_responders(
        responders, count, propensity=propensity, control_index=control, is_binary=kind == "binary"
    )
    if kind in {"count", "mean"}:  # one that brought as much as all others is no crowd
        amounts = effective_amounts(total, squares, propensity=propensity, control_index=control)
        cancel = amounts_cancel(responders, total)[..., np.newaxis]
        effective = np.where(cancel, effective, np.minimum(effective, amounts))
    if kind == "binary":  # few by what the variant did, not by how many met it
        expected, error = rates_if_alike(responders, count, propensity=propensity, control_index=control)
        few = effective < enough
        told = few & (expected >= SMALLEST_RESPONDERS) & (contrast.standard_error < error)
        contrast = replace(contrast, standard_error=np.where(told, error, contrast.standard_error))
        effective = np.where(few, np.maximum(effective, expected), effective)
    return contrast, effective
