"""The hash that decides: golden vectors, uniformity, stickiness when weights move."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from experiments.decisions.hashing import (
    ShareHash,
    UnitHash,
    Wheel,
    holdout_uniform,
    period_of,
    series_of,
    series_range,
)

SECRET = bytes(range(32))


def test_a_customers_hash_is_keyed_blake2b_of_the_length_prefixed_id() -> None:
    """Written out by hand from the definition of hash version 1, so that no change of ours goes unseen."""
    digest = blake2b(b"\x00\x00\x00\x0acustomer-1", key=SECRET + b"\x00\x00\x00\x07", digest_size=20).digest()
    expected = int.from_bytes(digest[12:], "big") / 2**64
    id_, uniform = UnitHash(SECRET, 7)("customer-1")
    assert id_ == b"\x00\x00\x00\x07" + digest[:12]
    assert uniform == pytest.approx(expected, abs=2**-52)


@pytest.mark.parametrize(
    ("parts", "expected_id", "expected_uniform"),
    [
        (("customer-1",), "00000007106f616106cb4a8d114d8daa", 0.8865129066734666),
        (("customer-1", "occasion-1"), "0000000742c56b20c5b9068282c674b1", 0.5698071384857782),
        (("Jürgen 🚀",), "00000007c42b4eab7e167482aab98949", 0.15806673923117698),
    ],
)
def test_golden_vectors_of_hash_version_1_never_change(
    parts: tuple[str, ...], expected_id: str, expected_uniform: float
) -> None:
    id_, uniform = UnitHash(SECRET, 7)(*parts)
    assert (id_.hex(), uniform) == (expected_id, expected_uniform)


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=3, unique=True))
def test_different_parts_give_different_ids(parts: list[str]) -> None:
    hash_ = UnitHash(SECRET, 1)
    joined = hash_("".join(parts))[0]
    assert len(parts) == 1 or hash_(*parts)[0] != joined


def test_uniform_numbers_are_uniform_and_unrelated_between_series() -> None:
    """False alarm: 2 in 10**6."""
    first, second = UnitHash(SECRET, 1), UnitHash(SECRET, 2)
    pairs = np.array([(first(f"c{i}")[1], second(f"c{i}")[1]) for i in range(20_000)])
    assert kstest(pairs[:, 0], "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5 / np.sqrt(20_000)


def test_moving_weights_by_a_point_changes_one_unit_in_a_hundred() -> None:
    """Expected 200 of 20,000; 5 standard deviations are 70."""
    hash_ = UnitHash(SECRET, 3)
    before, after = Wheel.of({"a": 0.5, "b": 0.5}), Wheel.of({"a": 0.51, "b": 0.49})
    uniforms = [hash_(f"c{i}")[1] for i in range(20_000)]
    changed = sum(before.pick(u)[0] != after.pick(u)[0] for u in uniforms)
    assert 130 < changed < 270


def test_holdouts_are_nested_by_share() -> None:
    places = [holdout_uniform(SECRET, f"c{i}") for i in range(1_000)]
    small = {i for i, place in enumerate(places) if place < 0.05}
    large = {i for i, place in enumerate(places) if place < 0.10}
    assert small < large


def test_a_variant_without_weight_is_never_picked() -> None:
    wheel = Wheel.of({"a": 0.0, "b": 1.0 - 1e-16, "c": 0.0})
    assert {wheel.pick(u) for u in (0.0, 0.5, 1 - 2**-53)} == {("b", 1.0 - 1e-16)}


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_a_pick_always_has_its_weight_as_propensity(raw: list[float], uniform: float) -> None:
    weights = {f"v{i}": weight / sum(raw) for i, weight in enumerate(raw)}
    variant, propensity = Wheel.of(weights).pick(uniform)
    assert propensity == weights[variant]


def test_ids_of_a_series_lie_in_its_range() -> None:
    id_, _ = UnitHash(SECRET, 2**32 - 1)("c")
    low, high = series_range(2**32 - 1)
    assert low <= id_ <= high
    assert series_of(id_) == 2**32 - 1
    assert series_range(1)[1] < series_range(2)[0]


def test_a_period_has_thirty_days() -> None:
    assert period_of(30 * 86_400 - 0.001) == 0
    assert period_of(30 * 86_400) == 1


def test_the_place_in_a_test_share_is_keyed_personalised_blake2b_of_the_length_prefixed_unit() -> None:
    """Written out by hand from its definition, and golden, so that no change of ours goes unseen."""
    message, key = b"\x00\x00\x00\x0acustomer-1", SECRET + b"\x00\x00\x00\x07"
    digest = blake2b(message, key=key, person=b"send plan test", digest_size=8).digest()
    place = ShareHash(SECRET, 7)("customer-1")
    assert place == pytest.approx(int.from_bytes(digest, "big") / 2**64, abs=2**-52)
    assert place == 0.8220549628300097


def test_being_in_a_test_says_nothing_of_the_variant_nor_of_another_test() -> None:
    """False alarm: 2 in 10**6."""
    test, variant, other = ShareHash(SECRET, 1), UnitHash(SECRET, 1), ShareHash(SECRET, 2)
    places = np.array([(test(f"c{i}"), variant(f"c{i}")[1], other(f"c{i}")) for i in range(20_000)])
    assert kstest(places[:, 0], "uniform").pvalue > 1e-6
    correlation = np.corrcoef(places.T)
    assert np.abs(correlation[0, 1:]).max() < 5 / np.sqrt(20_000)
    assert kstest(places[places[:, 0] < 0.2, 1], "uniform").pvalue > 1e-6
