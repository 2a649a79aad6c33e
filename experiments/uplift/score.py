"""Scoring a list: for each customer what every variant is predicted to change, what to choose, and the leaf."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.catalog.definitions import AttributeDefinition, SegmentationDefinition, SegmentDefinition
from experiments.exports.files import Columns
from experiments.input.attributes import coerce
from experiments.lists.columns import Sources
from experiments.lists.reading import Pace, Row, Table, in_parts
from experiments.lists.writing import as_text, free_name
from experiments.segments.rules import compile_segmentation
from experiments.uplift.features import matrix
from experiments.uplift.stored import Scorer

PART = 20_000
_PREFIX = "scored_"


@dataclass(frozen=True, slots=True)
class Scoring:
    """What scores rows.

    Attributes:
        scorer: The stored model.
        leaves: Of its tree, as the analysis says them: segment, rule, variant.
        declared: Attributes as they are declared now.
    """

    scorer: Scorer
    leaves: Sequence[Mapping[str, Any]]
    declared: Mapping[str, AttributeDefinition]

    def columns(self, table: Table) -> Columns:
        """The list's columns, then ours; one of ours whose name is taken begins with ``scored_``."""
        ours: Columns = {
            "control_mean": "number",
            **{f"uplift.{key}": "number" for key in self.scorer.variants[1:]},
            "gain": "number",
            "variant": "text",
            "segment": "text",
            "segment_variant": "text",
            "error": "text",
        }
        return {
            **dict.fromkeys(table.columns, "text"),
            **{free_name(name, table.columns, prefix=_PREFIX): kind for name, kind in ours.items()},
        }


def score_rows(scoring: Scoring, table: Table, *, sources: Sources) -> Iterator[list[list[Any]]]:
    """Rows with their scores, in their order, a part at a time; a bad row has its error in it.

    Columns are those of ``Scoring.columns``: what customers are predicted to do under control, the uplift of each other
    variant (positive is better), the variant that the model chooses with the net value that it is predicted to gain
    over control, and the leaf of the tree with its variant.

    Raises:
        ListUnreadable: The rest can't be read; what came before has been yielded.
    """
    leaf_of = _leaf_of(scoring)
    for part in in_parts(table.rows, Pace(PART)):
        typed, errors = _typed(scoring, part, sources=sources, is_text=table.is_text)
        scores = _scores(scoring.scorer, typed)
        nothing = [None] * (len(scoring.scorer.variants) + 4)
        yield [
            [*_given(row, table), *(nothing if error else [*scores.of(at), *leaf_of(typed[at])]), error]
            for at, (row, error) in enumerate(zip(part, errors, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class _Scores:
    base: list[float]
    uplift: list[list[float]]
    gain: list[float]
    variant: list[str]

    def of(self, at: int) -> list[Any]:
        return [self.base[at], *self.uplift[at], self.gain[at], self.variant[at]]


def _scores(scorer: Scorer, typed: Sequence[Mapping[str, Any]]) -> _Scores:
    x = matrix(scorer.features, typed)
    uplift = scorer.model.uplift(x)
    gain = scorer.model.gain(x, scorer.cost, uplift=uplift)
    choice = scorer.purse.choose(gain)
    return _Scores(
        base=scorer.model.mean(x)[:, 0].tolist(),
        uplift=uplift.tolist(),
        gain=gain[np.arange(len(choice)), choice].tolist(),
        variant=[scorer.variants[one] for one in choice],
    )


def _typed(
    scoring: Scoring, part: Sequence[Row], *, sources: Sources, is_text: bool
) -> tuple[list[dict[str, Any]], list[str | None]]:
    typed: list[dict[str, Any]] = []
    errors: list[str | None] = []
    for row in part:
        said = {} if row.error is not None else sources.attributes_of(row.values)
        read = coerce(said, scoring.declared, text=is_text)
        wrong = row.error or "; ".join(f"{one.pointer or '/'} {one.detail}" for one in read.invalid)
        errors.append(wrong or None)
        typed.append({} if wrong else {key: value for key, value in read.typed.items() if key in scoring.declared})
    return typed, errors


def _leaf_of(scoring: Scoring) -> Any:
    """Says the leaf of typed attributes, by the very rules that serving would use, and its variant."""
    by_key = {leaf["segment"]: leaf["variant"] for leaf in scoring.leaves}
    segments = tuple(SegmentDefinition(key=leaf["segment"], rule=leaf["rule"]) for leaf in scoring.leaves[:-1])
    split = SegmentationDefinition(segments=segments, otherwise=scoring.leaves[-1]["segment"])
    compiled = compile_segmentation(split, scoring.declared)

    def leaf_of(values: Mapping[str, Any]) -> tuple[str, str]:
        key = compiled.segment_of(values)
        return key, by_key[key]

    return leaf_of


def _given(row: Row, table: Table) -> list[str | None]:
    return [as_text(row.values.get(name)) for name in table.columns]
