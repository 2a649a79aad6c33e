"""review: turn tallies into what an analyst needs to know, per segment and over all."""

from experiments.review.over_time import results_over_time
from experiments.review.results import results
from experiments.review.standing import policy_results, programme_results

__all__ = ["policy_results", "programme_results", "results", "results_over_time"]
