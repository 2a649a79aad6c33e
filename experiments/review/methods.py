"""The difference from control by three methods: plain, by inverse propensity, adaptively weighted; over matured units."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from experiments.review.estimates import expected_before
from experiments.review.strata import Strata
from optimizer.bandit_estimates import REASONS, BanditEstimates, Difference, bandit_estimates, disagree
from optimizer.standardise import across_segments

Floats = NDArray[np.float64]
