"""The options that say what a past campaign's file holds; ``import`` and ``replay`` share them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from experiments.campaigns.log import KINDS, Campaign, CampaignColumns, OutcomeColumn, read_campaign

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CampaignFile:
    """A file, and what its columns hold."""

    path: Path
    columns: CampaignColumns

    def read(self) -> Campaign:
        """Read and check it.

        Raises:
            UnreadableCampaign: With the number of the first row that is wrong, or what the file as a whole lacks.
        """
        return read_campaign(self.path, self.columns, now=datetime.now(UTC))


def campaign_options(command: Callable[Concatenate[CampaignFile, Given], Result]) -> Callable[Given, Result]:
    """Give a command the argument FILE and the options that name its columns, as its first argument."""

    @wraps(command)
    def configured(*args: Given.args, **given: Given.kwargs) -> Result:
        path: Any = given.pop("file")
        said: dict[str, Any] = {name: given.pop(name) for name in _COLUMNS}
        columns = CampaignColumns(
            variant=said["variant_column"],
            control=said["control"],
            outcomes=tuple(map(read_outcome_column, said["outcome"])),
            segment=said["segment_column"],
            attributes=tuple(name for name in (said["attributes"] or "").split(",") if name),
            propensity=said["propensity_column"],
            customer=said["customer_column"],
            decided=said["decided_column"],
        )
        return command(CampaignFile(path, columns), *args, **given)

    for option in reversed(_OPTIONS):
        configured = option(configured)
    return configured


def read_outcome_column(text: str) -> OutcomeColumn:
    """``NAME`` or ``NAME:kind``; a name may hold colons itself.

    >>> read_outcome_column("spend:mean")
    OutcomeColumn(name='spend', kind='mean')
    """
    name, colon, kind = text.rpartition(":")
    return OutcomeColumn(name, kind) if colon and kind in KINDS else OutcomeColumn(text)


_COLUMNS = (
    "variant_column",
    "control",
    "outcome",
    "segment_column",
    "attributes",
    "propensity_column",
    "customer_column",
    "decided_column",
)
_OPTIONS = (
    click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--variant-column", required=True, help="Column of the variant that each row got."),
    click.option("--control", required=True, help="The control's value in that column."),
    click.option(
        "--outcome",
        required=True,
        multiple=True,
        metavar="NAME[:KIND]",
        help="Column of outcomes, which also names its metric; KIND is binary (default), count or mean. Repeatable; the"
        " first is the goal.",
    ),
    click.option("--segment-column", help="Column whose values are the segments."),
    click.option("--attributes", metavar="A,B,C", help="Columns kept as the customer's attributes."),
    click.option("--propensity-column", help="Column of the chosen variant's probability; else the observed shares."),
    click.option("--customer-column", help="Column of customer ids, each once; else row-1, row-2, ..."),
    click.option("--decided-column", help="Column of decision times in ISO 8601; else all of 2000-01-01."),
)
