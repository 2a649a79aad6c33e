"""Expected values by hand, from the doors' contract: 64 keys, 16 kB, 20 deep, typed by declaration."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from experiments.catalog.definitions import AttributeDefinition
from experiments.input.attributes import coerce

DECLARED = {
    "name": AttributeDefinition(type="string"),
    "orders": AttributeDefinition(type="number"),
    "member": AttributeDefinition(type="boolean"),
    "since": AttributeDefinition(type="datetime"),
    "tags": AttributeDefinition(type="strings"),
    "secret": AttributeDefinition(type="string", stored=False),
}
AS_JSON = {"name": "Ann", "orders": 12, "member": True, "since": "2026-01-02T10:00:00+02:00", "tags": ["a", "b"]}
AS_TEXT = {"name": "Ann", "orders": "12", "member": "true", "since": "2026-01-02T10:00:00+02:00", "tags": "a, b"}
TYPED = AS_JSON | {"since": datetime(2026, 1, 2, 8, tzinfo=UTC)}
STORED = AS_JSON | {"since": "2026-01-02T08:00:00+00:00"}


@pytest.mark.parametrize(("values", "text"), [(AS_JSON, False), (AS_TEXT, True)])
def test_json_and_text_give_the_same_typed_and_stored_attributes(values: dict[str, object], *, text: bool) -> None:
    coerced = coerce(values, DECLARED, text=text)
    assert (coerced.typed, coerced.stored, coerced.invalid) == (TYPED, STORED, [])


def test_undeclared_attributes_serve_templates_and_are_never_stored() -> None:
    coerced = coerce({"shop": {"city": "Graz"}, "age": 3}, DECLARED, text=False)
    assert (coerced.typed, coerced.stored, coerced.invalid) == ({"shop": {"city": "Graz"}, "age": 3}, {}, [])


def test_an_attribute_declared_as_not_stored_is_not_stored() -> None:
    coerced = coerce({"secret": "x"}, DECLARED, text=False)
    assert (coerced.typed, coerced.stored) == ({"secret": "x"}, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 1),
        ("orders", "12"),
        ("orders", True),
        ("orders", math.nan),
        ("orders", -math.inf),
        ("orders", 2**63),
        ("member", 1),
        ("member", "true"),
        ("since", "yesterday"),
        ("since", 1_700_000_000),
        ("tags", "a,b"),
        ("tags", ["a", 1]),
        ("undeclared", math.nan),
        ("undeclared", "a\0"),
        ("name", "a\ud800"),
    ],
)
def test_what_does_not_fit_is_named_and_dropped_alone(key: str, value: object) -> None:
    coerced = coerce({"secret": "x", key: value}, DECLARED, text=False)
    assert coerced.typed == {"secret": "x"}
    assert coerced.stored == {}
    assert [field.pointer for field in coerced.invalid] == [f"/{key}"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("orders", "12.5", 12.5),
        ("orders", "-3", -3),
        ("orders", "1e3", 1000.0),
        ("orders", "99999999999999999999", 1e20),
        ("member", "False", False),
        ("member", "1", True),
        ("since", "2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("tags", "a,,b ,", ["a", "b"]),
        ("undeclared", "12", "12"),
    ],
)
def test_text_is_read_by_its_declaration(key: str, value: str, expected: object) -> None:
    typed = coerce({key: value}, DECLARED, text=True).typed[key]
    assert typed == expected
    assert type(typed) is type(expected)


@pytest.mark.parametrize("value", ["nan", "inf", "1_000", "1,5", "0x10", "١٢", "12 ", "1e999", "9" * 200, "--1"])
def test_only_plain_decimal_numbers_are_numbers(value: str) -> None:
    coerced = coerce({"orders": value}, DECLARED, text=True)
    assert (coerced.typed, [field.pointer for field in coerced.invalid]) == ({}, ["/orders"])


def test_a_null_and_an_empty_merge_tag_are_missing_attributes() -> None:
    assert coerce({"name": None, "x": None}, DECLARED, text=False).typed == {}
    assert coerce({"name": "", "orders": "", "x": ""}, DECLARED, text=True).typed == {}
    assert coerce({"name": ""}, DECLARED, text=False).typed == {"name": ""}


def deep(n_levels: int) -> Any:
    value: Any = 1
    for _ in range(n_levels):
        value = [value]
    return value


def test_values_nested_deeper_than_the_limit_are_dropped() -> None:
    assert coerce({"a": deep(19)}, DECLARED, text=False).invalid == []
    for n_levels in (20, 5_000):
        coerced = coerce({"a": deep(n_levels), "name": "Ann"}, DECLARED, text=False)
        assert (coerced.typed, len(coerced.invalid)) == ({"name": "Ann"}, 1)


def test_more_than_64_attributes_or_16_kb_are_refused_whole() -> None:
    assert coerce({f"a{i}": 1 for i in range(64)}, DECLARED, text=False).invalid == []
    for values in ({f"a{i}": 1 for i in range(65)}, {f"a{i}": "x" * 4_000 for i in range(5)}):
        coerced = coerce(values, DECLARED, text=False)
        assert (coerced.typed, coerced.stored, [field.pointer for field in coerced.invalid]) == ({}, {}, [""])


def test_a_name_with_nul_is_refused() -> None:
    coerced = coerce({"a\0": 1, "name": "Ann"}, DECLARED, text=False)
    assert (coerced.typed, len(coerced.invalid)) == ({"name": "Ann"}, 1)


def test_text_that_only_looks_like_nul_is_kept() -> None:
    assert coerce({"name": "\\u0000"}, DECLARED, text=False).typed == {"name": "\\u0000"}
