"""Expected values: the examples and defaults of the HTTP contract, and RFC 6901 for pointers."""

import math
from typing import Any

import pytest

from experiments.catalog.definitions import (
    BUILT_IN_METRICS,
    BUILT_IN_SEGMENTATIONS,
    AttributeDefinition,
    ExperimentDefinition,
    MetricDefinition,
    PlacementDefinition,
    SegmentationDefinition,
    parse_definition,
    window_hours,
)
from experiments.errors import InvalidDefinition, InvalidInput
from experiments.input.checks import check_id, check_json, shown

VALUE = {
    "segments": [
        {"key": "vip", "rule": {"attribute": "lifetime_value", "gte": 500}},
        {
            "key": "local-new",
            "rule": {
                "all": [
                    {"attribute": "country", "in": ["DE", "AT"]},
                    {"not": {"attribute": "orders", "gt": 0}},
                ]
            },
        },
    ],
    "otherwise": "everyone-else",
}
WELCOME = {
    "channel": "email",
    "segmentation": "value",
    "format": "text",
    "holdout": {"share": 0.05, "gets": "default"},
    "default": {"key": "plain", "content": {"text": "Welcome!"}},
}
SUBJECT: dict[str, Any] = {
    "placement": "welcome-subject",
    "segments": ["vip", "local-new"],
    "unit": "occasion",
    "method": "thompson",
    "goal": "click",
    "metrics": ["purchase"],
    "burn_in": 100,
    "floor": 0.01,
    "guardrails": [{"metric": "unsubscribe", "max_harm": 0.002}],
    "variants": [
        {"key": "a", "content": {"text": "Hi {{ first_name | default('there') }}"}, "is_control": True},
        {"key": "b", "content": {"text": "A gift inside"}, "cost": {"per_response": 5.0}},
    ],
}


def refused(model: type[Any], payload: object) -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as caught:
        parse_definition(model, payload)
    assert caught.value.code == "invalid_definition"
    return dict(caught.value.fields)


def test_the_examples_of_the_contract_are_accepted() -> None:
    assert parse_definition(AttributeDefinition, {"type": "number"}).stored
    assert parse_definition(SegmentationDefinition, VALUE).segments[1].key == "local-new"
    assert parse_definition(PlacementDefinition, WELCOME).default.deliver
    metric = {"event": "click", "kind": "binary", "window_hours": 72, "direction": "increase"}
    assert parse_definition(MetricDefinition, metric).grace_hours == 24
    assert parse_definition(ExperimentDefinition, SUBJECT).gates.min_days == 7


def test_what_a_definition_says_survives_a_round_trip_through_json() -> None:
    experiment = parse_definition(ExperimentDefinition, SUBJECT)
    assert parse_definition(ExperimentDefinition, experiment.model_dump(mode="json")) == experiment


def test_a_holdout_must_be_said() -> None:
    payload = {key: value for key, value in WELCOME.items() if key != "holdout"}
    assert refused(PlacementDefinition, payload) == {"/holdout": "holdout must be said"}


@pytest.mark.parametrize("share", [-0.01, 0.51, math.nan, math.inf, "0.05", True, None])
def test_a_holdout_keeps_out_at_most_half(share: object) -> None:
    assert list(refused(PlacementDefinition, WELCOME | {"holdout": {"share": share}})) == ["/holdout/share"]


def test_every_error_is_named_at_once_with_its_pointer() -> None:
    payload = SUBJECT | {
        "floor": "much",
        "goal": "no spaces",
        "colour": "red",
        "metrics": ["purchase", "purchase"],
        "variants": [
            {"key": "a", "content": {"text": "{{ 'a' * 9 }}"}, "is_control": True},
            {"key": "b", "content": {"list": ["{% for x in y %}{% endfor %}"]}, "cost": {"per_response": -1}},
        ],
    }
    assert refused(ExperimentDefinition, payload).keys() == {
        *("/floor", "/goal", "/colour", "/metrics/0", "/metrics/1"),
        *("/variants/0/content/text", "/variants/1/content/list/0", "/variants/1/cost/per_response"),
    }


def test_an_unusable_number_does_not_hide_the_other_errors() -> None:
    found = refused(ExperimentDefinition, SUBJECT | {"floor": math.nan, "burn_in": -1})
    assert found.keys() == {"/floor", "/burn_in"}


def test_pointers_escape_slash_and_tilde() -> None:
    """RFC 6901, section 3: ~ is ~0, / is ~1."""
    found = refused(PlacementDefinition, WELCOME | {"default": {"key": "d", "content": {"a/b~c": "{{ x() }}"}}})
    assert list(found) == ["/default/content/a~1b~0c"]


def test_details_name_the_value_but_never_more_than_100_characters_of_it() -> None:
    found = refused(AttributeDefinition, {"type": "number", "description": "x" * 10_000})
    assert "x" * 100 in found["/description"]
    assert len(found["/description"]) < 250
    found = refused(MetricDefinition, {"event": "e", "kind": "count", "cap": 10**5_000})
    assert len(found["/cap"]) < 250


def test_at_most_100_errors_are_named() -> None:
    payload = SUBJECT | {f"unknown-{i}": 1 for i in range(1_000)}
    assert len(refused(ExperimentDefinition, payload)) == 100


@pytest.mark.parametrize("payload", [None, [], "text", 1, [SUBJECT]])
def test_what_is_no_object_is_no_definition(payload: object) -> None:
    assert list(refused(ExperimentDefinition, payload)) == [""]


@pytest.mark.parametrize("key", ["", "-a", ".a", "a b", "a\n", "ä", "a" * 129, "a/b", 1, None])
def test_keys_are_letters_digits_dot_underscore_and_hyphen(key: object) -> None:
    assert list(refused(SegmentationDefinition, {"segments": [], "otherwise": key})) == ["/otherwise"]


def test_a_key_of_128_characters_is_accepted() -> None:
    assert parse_definition(SegmentationDefinition, {"segments": [], "otherwise": "a" * 128}).otherwise == "a" * 128


def test_segment_keys_are_unique_and_otherwise_is_none_of_them() -> None:
    rule = {"attribute": "a", "eq": 1}
    twice = {"segments": [{"key": "s", "rule": rule}, {"key": "s", "rule": rule}], "otherwise": "z"}
    assert refused(SegmentationDefinition, twice).keys() == {"/segments/0/key", "/segments/1/key"}
    assert list(refused(SegmentationDefinition, VALUE | {"otherwise": "vip"})) == ["/otherwise"]


def test_the_faults_of_a_rule_are_named_inside_it() -> None:
    rule = {"all": [{"attribute": "a", "eq": 1}, {"not": {"attribute": "a", "near": 1}}, {}]}
    found = refused(SegmentationDefinition, {"segments": [{"key": "s", "rule": rule}], "otherwise": "z"})
    assert found.keys() == {"/segments/0/rule/all/1/not/near", "/segments/0/rule/all/2"}


@pytest.mark.parametrize(
    ("controls", "pointers"),
    [([False, False], {"/variants"}), ([True, True], {"/variants/1/is_control"}), ([True], {"/variants"})],
)
def test_an_experiment_has_two_variants_and_one_control(controls: list[bool], pointers: set[str]) -> None:
    variants = [{"key": f"v{i}", "content": {}, "is_control": is_control} for i, is_control in enumerate(controls)]
    assert refused(ExperimentDefinition, SUBJECT | {"variants": variants}).keys() == pointers


def test_variant_keys_are_unique() -> None:
    variants = [{"key": "v", "content": {}, "is_control": i == 0} for i in range(2)]
    found = refused(ExperimentDefinition, SUBJECT | {"variants": variants})
    assert found.keys() == {"/variants/0/key", "/variants/1/key"}


@pytest.mark.parametrize(
    ("weights", "method", "pointers"),
    [
        ({"a": 0.5, "b": 0.6}, "fixed", {"/weights"}),
        ({"a": 1.0}, "fixed", {"/weights"}),
        ({"a": 0.5, "b": 0.3, "c": 0.2}, "fixed", {"/weights/c"}),
        ({"a": 0.5, "b": 0.5}, "thompson", {"/weights"}),
    ],
)
def test_weights_are_a_share_of_each_variant_by_the_method_fixed(
    weights: dict[str, float], method: str, pointers: set[str]
) -> None:
    assert refused(ExperimentDefinition, SUBJECT | {"weights": weights, "method": method}).keys() == pointers


def test_fixed_weights_are_accepted() -> None:
    experiment = parse_definition(ExperimentDefinition, SUBJECT | {"weights": {"a": 0.1, "b": 0.9}, "method": "fixed"})
    assert experiment.weights == {"a": 0.1, "b": 0.9}


def test_the_goal_is_not_a_metric_again() -> None:
    assert list(refused(ExperimentDefinition, SUBJECT | {"metrics": ["purchase", "click"]})) == ["/metrics/1"]


def test_binary_metrics_have_no_cap_and_only_means_are_money() -> None:
    found = refused(MetricDefinition, {"event": "e", "kind": "binary", "cap": 10, "currency": "EUR"})
    assert found.keys() == {"/cap", "/currency"}
    assert parse_definition(MetricDefinition, {"event": "e", "kind": "mean", "cap": 10, "currency": "EUR"}).cap == 10


def test_content_is_at_most_64_kb_and_20_deep() -> None:
    deep: Any = "x"
    for _ in range(21):
        deep = {"a": deep}
    for content in ({"text": "x" * 65_536}, deep):
        found = refused(PlacementDefinition, WELCOME | {"default": {"key": "d", "content": content}})
        assert next(iter(found)).startswith("/default/content")
    parse_definition(PlacementDefinition, WELCOME | {"default": {"key": "d", "content": deep["a"]}})
    parse_definition(PlacementDefinition, WELCOME | {"default": {"key": "d", "content": {"text": "x" * 65_000}}})


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_nul_and_lone_surrogates_are_refused_in_values_and_in_names(text: str) -> None:
    assert list(refused(AttributeDefinition, {"type": "string", "description": text})) == ["/description"]
    assert refused(AttributeDefinition, {"type": "string", text: 1})


def test_a_payload_5000_deep_is_an_answer() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    assert refused(AttributeDefinition, {"type": "string", "description": deep})


def test_built_in_metrics_count_72_hours_on_the_web_and_a_week_by_email() -> None:
    assert set(BUILT_IN_METRICS) == {"click", "purchase", "revenue", "unsubscribe"}
    for metric in BUILT_IN_METRICS.values():
        assert window_hours(metric, channel="web") == 72
        assert window_hours(metric, channel="email") == 7 * 24
    assert BUILT_IN_METRICS["unsubscribe"].direction == "decrease"
    assert (BUILT_IN_METRICS["revenue"].event, BUILT_IN_METRICS["revenue"].kind) == ("purchase", "mean")


def test_a_metric_that_says_its_window_has_it_in_every_channel() -> None:
    metric = MetricDefinition(event="e", kind="binary", window_hours=10)
    assert window_hours(metric, channel="email") == 10


def test_the_default_of_a_placement_renders_for_customers_without_attributes() -> None:
    """It is what every failing template falls back to."""
    default = {"key": "d", "content": {"a": ["Hi {{ first_name }}"]}}
    assert list(refused(PlacementDefinition, WELCOME | {"default": default})) == ["/default/content/a/0"]
    default = {"key": "d", "content": {"a": ["Hi {{ first_name | default('you') }}"]}}
    assert parse_definition(PlacementDefinition, WELCOME | {"default": default}).default.key == "d"


def test_everyone_is_one_segment() -> None:
    everyone = BUILT_IN_SEGMENTATIONS["everyone"]
    assert (everyone.segments, everyone.otherwise) == ((), "everyone")


@pytest.mark.parametrize("value", ["", "x" * 257, "ä" * 129, "a\0", "a\udfff", 7, None, ["a"]])
def test_bad_ids_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_id(value, "/customer_id")
    assert caught.value.fields[0].pointer == "/customer_id"


@pytest.mark.parametrize("value", ["a", "x" * 256, "ä" * 128, "customer 1 / é"])
def test_ids_of_1_to_256_bytes_are_accepted(value: str) -> None:
    assert check_id(value, "") == value


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"a": [1, 2**63]}, "/a/1"),
        ({"a": math.inf}, "/a"),
        ([[[1]]], "/0/0"),
        ({"a": "x" * 200}, ""),
        ({"a": {1}}, "/a"),
    ],
)
def test_json_that_no_database_could_hold_is_refused(value: object, pointer: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_json(value, max_depth=2, max_bytes=100)
    assert [field.pointer for field in caught.value.fields] == [pointer]


def test_the_limits_of_json_themselves_are_accepted() -> None:
    check_json({"a": [-(2**63), 2**63 - 1]}, max_depth=2, max_bytes=100)
    check_json({"a": "x" * 92}, max_depth=2, max_bytes=100)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), ({"a": 1}, "an object of 1"), (2**64, "an integer of 65 bits")]
)
def test_values_are_shown_as_json_has_them(value: object, text: str) -> None:
    assert shown(value) == text
