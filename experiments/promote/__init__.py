"""promote: what won becomes the policy of its segments, versioned, with its evidence; rolled back by one more."""

from experiments.promote.policies import read_policy, rollback
from experiments.promote.promotion import promote

__all__ = ["promote", "read_policy", "rollback"]
