"""What a winner earns: outcomes in money less the variants' costs, per 1,000 units and per month."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.review.estimates import estimate
from experiments.review.strata import Strata
from experiments.series import PinnedMetric

Floats = NDArray[np.float64]

MONTH_HOURS = 30 * 24
RATE_HOURS = 7 * 24  # the present rate is that of the last seven days with decisions
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Costs:
    """Of each variant, in the currency of the goal, shape (n_variants,)."""

    per_response: Floats
    per_decision: Floats

    @property
    def any(self) -> bool:
        """Whether any variant costs anything."""
        return bool(self.per_response.any() or self.per_decision.any())


def costs_of(variants: Sequence[Mapping[str, float] | None]) -> Costs:
    """The costs of variants, as their definitions have them."""
    rows = [(cost or {}).get(name, 0.0) for cost in variants for name in ("per_response", "per_decision")]
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return Costs(table[:, 0], table[:, 1])


def value_metric(asked: PinnedMetric, pinned: Sequence[PinnedMetric], *, costs: Costs) -> PinnedMetric | None:
    """The metric whose outcomes are money: the one asked for if it is, else the first that is.

    With costs a mean without a currency counts as money too, since costs are in the goal's unit.
    """
    money = [metric for metric in (asked, *pinned) if metric.kind == "mean" and metric.currency is not None]
    means = [metric for metric in (asked, *pinned) if metric.kind == "mean"] if costs.any else []
    return next(iter([*money, *means]), None)


def net_of_costs(value: Strata | None, goal: Strata, *, costs: Costs, same_event: bool) -> Strata:
    """Strata of what each unit is worth: its outcome in money, less its variant's costs.

    A unit that brings money has responded to the goal too where both read the same event, and then every square is
    exact. Else the squares are an upper bound (for outcomes that are not negative), and intervals rather too wide.

    Args:
        value: Of the metric that is money; None where costs are all there is.
        goal: Of the metric whose responses cost; it has all strata of ``value``.
        costs: By variant.
        same_event: Whether whoever brings money has responded to the goal.
    """
    n, responders = goal.n_units, goal.n_responders
    total = np.zeros(n.shape) if value is None else value.placed(value.total, like=goal)
    squares = np.zeros(n.shape) if value is None else value.placed(value.squares, like=goal)
    response, decision = costs.per_response, costs.per_decision
    together = total if same_event else np.zeros(n.shape)
    net = total - response * responders - decision * n
    of_costs = (response**2 + 2.0 * response * decision) * responders + decision**2 * n
    found = squares - 2.0 * response * together - 2.0 * decision * total + of_costs
    least = np.divide(net**2, n, out=np.zeros(n.shape), where=n > 0.0)  # rounding, or refunds, may fall below it
    return replace(goal, total=net, squares=np.maximum(found, least))


def money_of(
    net: Strata, *, winner: str | None, currency: str | None, metric: str | None, monthly_units: float | None
) -> dict[str, Any] | None:
    """What the winner earns more than control, uncapped, with a 95 % interval; None where they can't be compared."""
    if winner is None:
        return None
    estimates, index = estimate(net), net.variants.index(winner)
    gain, variance = estimates.difference[-1, index], estimates.difference_variance[-1, index]
    if not (np.isfinite(gain) and np.isfinite(variance)):
        return None
    reach = _Z * float(np.sqrt(variance))
    return {
        "variant": winner,
        "against": net.variants[net.control],
        "per_1000": 1000.0 * float(gain),
        "per_month": None if monthly_units is None else monthly_units * float(gain),
        "interval": [1000.0 * (float(gain) - reach), 1000.0 * (float(gain) + reach)],
        "currency": currency,
        "metric": metric,
        "is_capped": False,
        "costs": "subtracted",
    }


def monthly_units(first_hour: Floats, last_hour: Floats, *, n_units: Floats) -> float | None:
    """Units in 30 days at the rate of the last seven days with decisions; None from less than a day of them.

    Args:
        first_hour: In which units of each row were decided, shape (n_rows,).
        last_hour: The same; a row that lies across the start of the seven days counts for its part.
        n_units: Of each row.
    """
    if not n_units.any():
        return None
    end = last_hour.max() + 1.0
    start = max(first_hour.min(), end - RATE_HOURS)
    hours = end - start
    inside = np.clip((last_hour + 1.0 - start) / (last_hour + 1.0 - first_hour), 0.0, 1.0)
    return float((n_units * inside).sum()) * MONTH_HOURS / hours if hours >= 24.0 else None
