"""Results and their series as rows of a table: one for each variant of a segment (and of a day); overall has none."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from experiments.exports.files import Columns, Rows

_HEAD: Final[Columns] = {"experiment": "text", "metric": "text", "as_of": "time"}
_VARIANT: Final[Columns] = {
    "variant": "text",
    "n_units": "whole",
    "n_responders": "whole",
    "mean": "number",
    "low": "number",
    "high": "number",
    "probability_best": "number",
    "weight": "number",
}
RESULT_COLUMNS: Final[Columns] = {
    **_HEAD,
    "segment": "text",
    "verdict": "text",
    "winner": "text",
    "reason": "text",
    **_VARIANT,
    "probability_beats_control": "number",
    "expected_loss": "number",
    "uplift_absolute": "number",
    "uplift_relative": "number",
    "uplift_low": "number",
    "uplift_high": "number",
    "uplift_relative_low": "number",
    "uplift_relative_high": "number",
    "always_valid_low": "number",
    "always_valid_high": "number",
    "always_valid_p_value": "number",
    "uncapped_mean": "number",
    "adaptive_difference": "number",
    "adaptive_low": "number",
    "adaptive_high": "number",
    "shrunk_relative": "number",
}
SERIES_COLUMNS: Final[Columns] = {**_HEAD, "segment": "text", "day": "text", **_VARIANT}


def result_rows(answer: Mapping[str, Any]) -> Rows:
    """The rows of what ``results`` gives, in the order of ``RESULT_COLUMNS``; money, checks and gates are not there."""
    return [
        _row({**answer, **row, **variant, **_intervals(variant)}, RESULT_COLUMNS)
        for row in _all(answer)
        for variant in row["variants"]
    ]


def series_rows(answer: Mapping[str, Any]) -> Rows:
    """The rows of what ``results_over_time`` gives, in the order of ``SERIES_COLUMNS``; novelty is not there."""
    return [
        _row({**answer, **row, **day, **variant, **_interval(variant)}, SERIES_COLUMNS)
        for row in _all(answer)
        for day in row["days"]
        for variant in day["variants"]
    ]


def _all(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from answer["segments"]
    yield {"segment": None, **answer["overall"]}


def _interval(variant: Mapping[str, Any]) -> dict[str, Any]:
    low, high = variant["interval"] or (None, None)
    return {"low": low, "high": high}


def _intervals(variant: Mapping[str, Any]) -> dict[str, Any]:
    return {**_interval(variant), **_uplift(variant), **_sequence(variant), **_other_estimates(variant)}


def _uplift(variant: Mapping[str, Any]) -> dict[str, Any]:
    uplift = variant["uplift"] or dict.fromkeys(("absolute", "relative", "interval", "relative_interval"))
    low, high = uplift["interval"] or (None, None)
    relative_low, relative_high = uplift["relative_interval"] or (None, None)
    return {
        "uplift_absolute": uplift["absolute"],
        "uplift_relative": uplift["relative"],
        "uplift_low": low,
        "uplift_high": high,
        "uplift_relative_low": relative_low,
        "uplift_relative_high": relative_high,
    }


def _sequence(variant: Mapping[str, Any]) -> dict[str, Any]:
    sequence = variant["always_valid"] or {"interval": None, "p_value": None}
    low, high = sequence["interval"] or (None, None)
    return {"always_valid_low": low, "always_valid_high": high, "always_valid_p_value": sequence["p_value"]}


def _other_estimates(variant: Mapping[str, Any]) -> dict[str, Any]:
    """What some metrics and segments have only: empty elsewhere."""
    adaptive = (variant["estimates"] or {}).get("adaptive") or {"difference": None, "interval": None}
    low, high = adaptive["interval"] or (None, None)
    shrunk = variant.get("shrunk") or {"relative": None}
    return {
        "uncapped_mean": variant.get("uncapped_mean"),
        "adaptive_difference": adaptive["difference"],
        "adaptive_low": low,
        "adaptive_high": high,
        "shrunk_relative": shrunk["relative"],
    }


def _row(values: Mapping[str, Any], columns: Columns) -> list[Any]:
    return [datetime.fromisoformat(values[name]) if kind == "time" else values[name] for name, kind in columns.items()]
