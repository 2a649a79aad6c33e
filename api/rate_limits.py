"""Quotas of keys at the doors: RateLimit fields on every answer, 429 beyond the quota."""

from typing import Final

from api.errors import RateLimited
from api.requests import Request
from api.state import current_worker
from experiments.access.rate_limits import Standing, parse_quota
from experiments.snapshot.plans import KeyPlan

_POLICY: Final = '"default"'


def count_request(request: Request, key: KeyPlan, *, refuses: bool) -> None:
    """Count a request of a key that has a quota.

    Raises:
        RateLimited: The quota is used up, and this door ``refuses`` then.
    """
    worker = current_worker()
    quota = parse_quota(worker.config.rate_limit if key.rate_limit is None else key.rate_limit)
    if quota is None:
        return
    standing = worker.rate_limits.count(key.id, quota)
    request.answer_headers = _fields(standing)
    if refuses and not standing.is_allowed:
        raise RateLimited(standing.ends_in_seconds, quota=quota)


def _fields(standing: Standing) -> dict[str, str]:
    """The RateLimit fields of draft-ietf-httpapi-ratelimit-headers."""
    return {
        "RateLimit-Policy": f"{_POLICY};q={standing.quota.n_requests};w={standing.quota.seconds}",
        "RateLimit": f"{_POLICY};r={standing.n_left};t={standing.ends_in_seconds}",
    }
