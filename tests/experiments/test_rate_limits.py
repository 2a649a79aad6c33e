"""Quotas: counted by hand."""

import pytest

from experiments.access.rate_limits import Quota, RateLimits, Standing, parse_quota

QUOTA = Quota(3, 60)


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Its time."""
        return self.now


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("100/second", Quota(100, 1)),
        ("1/minute", Quota(1, 60)),
        ("20/hour", Quota(20, 3_600)),
        ("999999999/day", Quota(999_999_999, 86_400)),
        ("off", None),
    ],
)
def test_a_quota_is_a_number_and_a_time(said: str, meant: Quota | None) -> None:
    assert parse_quota(said) == meant


@pytest.mark.parametrize("said", ["", "100", "0/second", "-1/second", "1.5/second", "100/week", "٣/second", "1/day\n"])
def test_anything_else_is_none(said: str) -> None:
    with pytest.raises(ValueError, match="such as 100/second"):
        parse_quota(said)


def test_a_window_begins_with_the_first_request_and_refuses_what_is_too_much() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock)
    assert limits.count("ann", QUOTA) == Standing(QUOTA, 2, 60, is_allowed=True)
    clock.now += 10.5
    assert limits.count("ann", QUOTA) == Standing(QUOTA, 1, 50, is_allowed=True)
    assert limits.count("ann", QUOTA) == Standing(QUOTA, 0, 50, is_allowed=True)
    assert limits.count("ann", QUOTA) == Standing(QUOTA, 0, 50, is_allowed=False)
    assert limits.count("bob", QUOTA).is_allowed
    clock.now += 49.4
    assert limits.count("ann", QUOTA) == Standing(QUOTA, 0, 1, is_allowed=False)
    clock.now += 0.1
    assert limits.count("ann", QUOTA) == Standing(QUOTA, 2, 60, is_allowed=True)


@pytest.mark.parametrize(("n_processes", "share"), [(1, 3), (2, 2), (3, 1), (8, 1)])
def test_processes_share_a_quota_evenly_rounded_up(n_processes: int, share: int) -> None:
    limits = RateLimits(n_processes=n_processes, clock=Clock())
    assert [limits.count("ann", QUOTA).is_allowed for _ in range(5)] == [n < share for n in range(5)]


def test_many_callers_need_no_more_memory_than_ten_thousand() -> None:
    limits = RateLimits(clock=Clock())
    for n in range(25_000):
        assert limits.count(str(n), QUOTA).n_left == 2
    assert len(limits._windows) <= 10_000  # noqa: SLF001  # the memory itself is what is promised
