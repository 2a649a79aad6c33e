"""Expected values: a naive interpreter of the same rules, and cases by hand."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.catalog.definitions import (
    BUILT_IN_SEGMENTATIONS,
    AttributeDefinition,
    SegmentationDefinition,
    SegmentDefinition,
)
from experiments.errors import InvalidDefinition
from experiments.segments.rules import compile_rule, compile_segmentation

DECLARED = {
    "country": AttributeDefinition(type="string"),
    "orders": AttributeDefinition(type="number"),
    "member": AttributeDefinition(type="boolean"),
    "since": AttributeDefinition(type="datetime"),
    "tags": AttributeDefinition(type="strings"),
}


def refused(rule: object) -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as caught:
        compile_rule(rule, DECLARED)
    return dict(caught.value.fields)


def matches(rule: object, **values: object) -> bool:
    return compile_rule(rule, DECLARED).matches(values)


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ({"attribute": "country", "eq": "DE"}, {"country": "DE"}, True),
        ({"attribute": "country", "ne": "DE"}, {"country": "AT"}, True),
        ({"attribute": "country", "in": ["DE", "AT"]}, {"country": "AT"}, True),
        ({"attribute": "country", "not_in": ["DE", "AT"]}, {"country": "AT"}, False),
        ({"attribute": "country", "starts_with": "D"}, {"country": "DE"}, True),
        ({"attribute": "country", "contains": "E"}, {"country": "DE"}, True),
        ({"attribute": "orders", "gt": 0}, {"orders": 0}, False),
        ({"attribute": "orders", "gte": 0}, {"orders": 0.0}, True),
        ({"attribute": "orders", "lt": 2**62}, {"orders": 1}, True),
        ({"attribute": "orders", "lte": 1.5}, {"orders": 2}, False),
        ({"attribute": "orders", "between": [1, 3]}, {"orders": 3}, True),
        ({"attribute": "orders", "in": [1, 2]}, {"orders": 1.0}, True),
        ({"attribute": "member", "eq": False}, {"member": False}, True),
        ({"attribute": "tags", "contains": "vip"}, {"tags": ["new", "vip"]}, True),
        ({"attribute": "tags", "contains": "vi"}, {"tags": ["new", "vip"]}, False),
        ({"attribute": "since", "exists": True}, {}, False),
        ({"attribute": "since", "exists": False}, {}, True),
        ({"not": {"attribute": "orders", "gt": 0}}, {}, True),
    ],
)
def test_operators_mean_what_they_say(rule: object, values: dict[str, object], *, expected: bool) -> None:
    assert matches(rule, **values) is expected


def test_dates_compare_as_moments_whatever_their_offset() -> None:
    rule = {"attribute": "since", "gte": "2026-01-02T01:00:00+01:00"}
    assert matches(rule, since=datetime(2026, 1, 2, tzinfo=UTC))
    assert not matches(rule, since=datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC))
    assert matches({"attribute": "since", "in": ["2026-01-02"]}, since=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    "condition",
    [
        *({"eq": 1}, {"ne": 1}, {"in": [1]}, {"not_in": [1]}, {"gt": 1}, {"gte": 1}, {"lt": 1}, {"lte": 1}),
        *({"between": [1, 2]}, {"exists": True}),
    ],
)
def test_a_missing_attribute_makes_every_comparison_false(condition: dict[str, object]) -> None:
    assert not matches({"attribute": "orders", **condition})
    assert not matches({"attribute": "orders", **condition}, orders=None)


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({"attribute": "member", "gt": True}, "/gt"),
        ({"attribute": "member", "gt": 1}, "/gt"),
        ({"attribute": "country", "gt": "A"}, "/gt"),
        ({"attribute": "country", "eq": 1}, "/eq"),
        ({"attribute": "orders", "eq": True}, "/eq"),
        ({"attribute": "orders", "in": [1, "2"]}, "/in"),
        ({"attribute": "orders", "in": [1, True]}, "/in"),
        ({"attribute": "orders", "in": ["1"]}, "/in/0"),
        ({"attribute": "orders", "in": []}, "/in"),
        ({"attribute": "orders", "in": 1}, "/in"),
        ({"attribute": "orders", "between": [3, 1]}, "/between"),
        ({"attribute": "orders", "between": [1, 2, 3]}, "/between"),
        ({"attribute": "orders", "contains": "1"}, "/contains"),
        ({"attribute": "since", "lt": "tomorrow"}, "/lt"),
        ({"attribute": "since", "lt": 20260101}, "/lt"),
        ({"attribute": "since", "between": ["2026-01-01", "never"]}, "/between/1"),
        ({"attribute": "tags", "eq": "vip"}, "/eq"),
        ({"attribute": "orders", "exists": 1}, "/exists"),
        ({"attribute": "nowhere", "eq": 1}, "/attribute"),
        ({"attribute": 3, "eq": 1}, "/attribute"),
        ({"attribute": "orders", "gt": 1, "lt": 3}, ""),
        ({"attribute": "orders"}, ""),
        ({"attribute": "orders", "near": 1}, "/near"),
        ({"all": []}, "/all"),
        ({"any": {"attribute": "orders", "gt": 1}}, "/any"),
        ({"all": [{"attribute": "orders", "gt": 1}], "any": []}, ""),
        ({}, ""),
        ([], ""),
        (None, ""),
        ({"not": "x"}, "/not"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_where_it_is_wrong(rule: object, pointer: str) -> None:
    assert list(refused(rule)) == [pointer]


def test_all_type_errors_of_a_rule_are_named() -> None:
    rule = {"any": [{"attribute": "orders", "eq": "1"}, {"not": {"attribute": "since", "gt": "x"}}]}
    assert refused(rule).keys() == {"/any/0/eq", "/any/1/not/gt"}


def test_a_rule_of_500_nodes_is_the_largest() -> None:
    condition = {"attribute": "orders", "gt": 0}
    assert matches({"all": [condition] * 499}, orders=1)
    for n_conditions in (500, 10_000):
        assert refused({"all": [condition] * n_conditions}) == {"": "has more than 500 nodes"}


def test_a_rule_of_20_levels_is_the_deepest() -> None:
    rule: dict[str, Any] = {"attribute": "orders", "gt": 0}
    for _ in range(19):
        rule = {"not": rule}
    assert not matches(rule, orders=1)
    for _ in range(5_000):
        rule = {"not": rule}
    assert refused(rule) == {"/not" * 20: "is nested more than 20 deep"}


def test_a_rule_knows_the_attributes_that_it_reads() -> None:
    rule = {"all": [{"attribute": "orders", "gt": 0}, {"not": {"attribute": "country", "eq": "DE"}}]}
    assert compile_rule(rule, DECLARED).attributes == {"orders", "country"}


def test_the_first_segment_that_matches_wins_and_everyone_else_is_last() -> None:
    definition = SegmentationDefinition(
        segments=(
            SegmentDefinition(key="loyal", rule={"attribute": "orders", "gte": 5}),
            SegmentDefinition(key="buyer", rule={"attribute": "orders", "gte": 1}),
        ),
        otherwise="new",
    )
    segmentation = compile_segmentation(definition, DECLARED)
    assert segmentation.keys == ("loyal", "buyer", "new")
    assert segmentation.attributes == {"orders"}
    assert [segmentation.segment_of({"orders": n}) for n in (7, 2, 0)] == ["loyal", "buyer", "new"]
    assert segmentation.segment_of({}) == "new"


def test_everyone_is_in_the_built_in_segment() -> None:
    segmentation = compile_segmentation(BUILT_IN_SEGMENTATIONS["everyone"], {})
    assert (segmentation.keys, segmentation.segment_of({"any": 1})) == (("everyone",), "everyone")


def test_the_faults_of_all_rules_of_a_segmentation_are_named() -> None:
    definition = SegmentationDefinition(
        segments=(
            SegmentDefinition(key="a", rule={"attribute": "orders", "gt": "1"}),
            SegmentDefinition(key="b", rule={"attribute": "nowhere", "eq": 1}),
        ),
        otherwise="c",
    )
    with pytest.raises(InvalidDefinition) as caught:
        compile_segmentation(definition, DECLARED)
    assert [field.pointer for field in caught.value.fields] == ["/segments/0/rule/gt", "/segments/1/rule/attribute"]


NUMBERS = st.integers(-2, 2) | st.sampled_from([-0.5, 0.5])
LETTERS = st.text("ab", max_size=2)
CONDITIONS = st.one_of(
    st.tuples(st.just("orders"), st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), NUMBERS),
    st.tuples(st.just("orders"), st.sampled_from(["in", "not_in"]), st.lists(NUMBERS, min_size=1, max_size=3)),
    st.tuples(st.just("orders"), st.just("between"), st.lists(NUMBERS, min_size=2, max_size=2).map(sorted)),
    st.tuples(st.just("country"), st.sampled_from(["eq", "ne", "contains", "starts_with"]), LETTERS),
    st.tuples(st.just("country"), st.sampled_from(["in", "not_in"]), st.lists(LETTERS, min_size=1, max_size=3)),
    st.tuples(st.just("tags"), st.just("contains"), LETTERS),
    st.tuples(st.just("member"), st.sampled_from(["eq", "ne"]), st.booleans()),
    st.tuples(st.sampled_from(["orders", "tags"]), st.just("exists"), st.booleans()),
).map(lambda parts: {"attribute": parts[0], parts[1]: parts[2]})
RULES = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda rules: {"all": rules}),
        st.lists(inner, min_size=1, max_size=3).map(lambda rules: {"any": rules}),
        inner.map(lambda rule: {"not": rule}),
    ),
    max_leaves=8,
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "orders": NUMBERS,
        "country": LETTERS,
        "member": st.booleans(),
        "tags": st.lists(LETTERS, max_size=3),
    },
)


def naive(rule: dict[str, Any], values: dict[str, Any]) -> Any:
    """The rule read afresh for each customer, as one would explain it."""
    if "all" in rule:
        return all([naive(part, values) for part in rule["all"]])  # noqa: C419 - no short cuts in the reference
    if "any" in rule:
        return any([naive(part, values) for part in rule["any"]])  # noqa: C419 - as above
    if "not" in rule:
        return not naive(rule["not"], values)
    (operator,) = set(rule) - {"attribute"}
    is_there, value, operand = rule["attribute"] in values, values.get(rule["attribute"]), rule[operator]
    if operator == "exists":
        return is_there is operand
    return is_there and naive_comparison(operator, value, operand=operand)


def naive_comparison(operator: str, value: Any, *, operand: Any) -> Any:
    if operator in {"eq", "ne"}:
        return (value == operand) == (operator == "eq")
    if operator in {"in", "not_in"}:
        return any(value == item for item in operand) == (operator == "in")
    if operator == "contains":
        return operand in value
    if operator == "starts_with":
        return str(value)[: len(operand)] == operand
    if operator == "between":
        return not value < operand[0] and not value > operand[1]
    is_equal, is_above = value == operand, value > operand
    return {"gt": is_above, "gte": is_above or is_equal, "lt": not is_above and not is_equal, "lte": not is_above}[
        operator
    ]


@settings(max_examples=300, deadline=None)
@given(rule=RULES, values=VALUES)
def test_compiled_rules_agree_with_a_naive_interpreter(rule: dict[str, Any], values: dict[str, Any]) -> None:
    assert compile_rule(rule, DECLARED).matches(values) is naive(rule, values)


@settings(max_examples=100, deadline=None)
@given(rules=st.lists(RULES, max_size=4), values=VALUES)
def test_segmentations_agree_with_a_naive_interpreter(rules: list[dict[str, Any]], values: dict[str, Any]) -> None:
    definition = SegmentationDefinition(
        segments=tuple(SegmentDefinition(key=f"s{i}", rule=rule) for i, rule in enumerate(rules)), otherwise="rest"
    )
    expected = [f"s{i}" for i, rule in enumerate(rules) if naive(rule, values)]
    assert compile_segmentation(definition, DECLARED).segment_of(values) == [*expected, "rest"][0]
