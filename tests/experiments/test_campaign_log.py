"""Reading the log of a past campaign: what it says, and which row is wrong."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments.campaigns.log import (
    Campaign,
    CampaignColumns,
    OutcomeColumn,
    attribute_type,
    key_of,
    read_campaign,
    typed_values,
)
from experiments.campaigns.versions import versions_of
from experiments.catalog.definitions import AttributeDefinition
from experiments.errors import UnreadableCampaign

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOG = """offer,tier,opened,orders,spent,p,who,at
None,2) low,0,0,0,0.5,ann,2025-03-01T10:00:00Z
A gift,2) low,1,2,19.90,0.5,bob,2025-03-01T11:00:00Z
A gift,,true,0,-5,0.5,cem,2025-03-02
"""
OUTCOMES = (OutcomeColumn("opened"), OutcomeColumn("orders", "count"), OutcomeColumn("spent", "mean"))


def read(
    folder: Path,
    text: str,
    *,
    control: str = "None",
    outcomes: tuple[OutcomeColumn, ...] = OUTCOMES,
    segment: str | None = None,
    propensity: str | None = None,
    customer: str | None = None,
    decided: str | None = None,
) -> Campaign:
    path = folder / "log.csv"
    path.write_text(text)
    columns = CampaignColumns(
        "offer", control, outcomes, segment=segment, propensity=propensity, customer=customer, decided=decided
    )
    return read_campaign(path, columns, now=NOW)


def refusal(folder: Path, text: str, **columns: str | None) -> str:
    with pytest.raises(UnreadableCampaign) as caught:
        read(folder, text, **columns)  # type: ignore[arg-type]  # only texts are varied
    return str(caught.value)


def test_each_column_is_read_as_what_it_was_said_to_be(tmp_path: Path) -> None:
    campaign = read(tmp_path, LOG, segment="tier", propensity="p", customer="who", decided="at")
    assert (campaign.variants.values, campaign.variants.keys) == (("None", "A gift"), ("None", "A-gift"))
    assert campaign.variants.index.tolist() == [0, 1, 1]
    assert (campaign.segments.values, campaign.segments.keys) == (("2) low", None), ("2-low", "everyone-else"))
    assert [outcome.value.tolist() for outcome in campaign.outcomes] == [[0, 1, 1], [0, 2, 0], [0, 19.9, -5]]
    assert campaign.outcomes[2].text[1] == "19.90"
    assert campaign.propensity.tolist() == [0.5, 0.5, 0.5]
    assert campaign.customers == ["ann", "bob", "cem"]
    assert campaign.decided_at is not None
    assert campaign.decided_at[2] == datetime(2025, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.zst", "log.parquet"])
def test_every_kind_of_file_says_the_same(tmp_path: Path, name: str) -> None:
    expected = read(tmp_path, LOG, segment="tier")
    path = tmp_path / name
    frame = pl.read_csv(tmp_path / "log.csv", schema_overrides={"opened": pl.String})
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(LOG.encode()))
    elif name.endswith("zst"):
        frame.write_csv(path, compression="zstd")
    else:
        frame.write_parquet(path)
    found = read_campaign(path, CampaignColumns("offer", "None", OUTCOMES, segment="tier"), now=NOW)
    assert found.variants.index.tolist() == expected.variants.index.tolist()
    assert found.segments.keys == expected.segments.keys
    assert [outcome.value.tolist() for outcome in found.outcomes] == [o.value.tolist() for o in expected.outcomes]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("19.90", "much", "row 2: 'spent' must be a number, not 'much'"),
        ("19.90", "nan", "row 2: 'spent' must be a number, not 'nan'"),
        ("19.90", "", "row 2: 'spent' is empty"),
        ("true", "maybe", "row 3: 'opened' must be 0 or 1, not 'maybe'"),
        ("gift,2) low,1,2,", "gift,2) low,1,2.5,", "row 2: 'orders' must be a whole number of 0 to 1,000"),
        ("None,2) low", ",2) low", "row 1: 'offer' is empty"),
        ("0.5,bob", "0,bob", "row 2: 'p' must be a propensity: above 0, at most 1, not '0'"),
        ("0.5,bob", "1.2,bob", "row 2: 'p' must be a propensity: above 0, at most 1, not '1.2'"),
        ("bob", "ann", "row 2: customer 'ann' is in row 1 already"),
        ("bob", "", "row 2: 'who' is empty"),
        ("2025-03-02", "tomorrow", "row 3: 'at' must be a time in ISO 8601, since 1980 and past, not 'tomorrow'"),
        ("2025-03-02", "2026-03-02", "row 3: 'at' must be a time in ISO 8601, since 1980 and past, not '2026-03-02'"),
        ("-5,0.5,cem,2025-03-02", "-5,0.5,cem,2025-03-02,extra", "row 3 of log.csv has 9 values, not 8"),
    ],
)
def test_a_bad_value_is_named_with_its_row(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = LOG.replace(old, new, 1)
    assert said in refusal(tmp_path, text, propensity="p", customer="who", decided="at")


def test_a_missing_column_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    assert refusal(tmp_path, LOG, segment="teir").startswith("log.csv has no column 'teir'; it has 'offer', 'tier'")


def test_an_unknown_control_is_named_beside_the_variants(tmp_path: Path) -> None:
    assert refusal(tmp_path, LOG, control="none") == (
        "'offer' has no value 'none' for the control; it has 'A gift', 'None'"
    )


def test_a_log_of_one_variant_is_no_campaign(tmp_path: Path) -> None:
    assert "at least 2 variants" in refusal(tmp_path, LOG.replace("A gift", "None"))


@pytest.mark.parametrize(("text", "said"), [("", "log.csv is empty"), (LOG.partition("\n")[0], "log.csv has no rows")])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(tmp_path, text) == said


def test_a_broken_file_is_said_to_be_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(UnreadableCampaign, match=r"log\.parquet can't be read"):
        read_campaign(path, CampaignColumns("offer", "None", OUTCOMES), now=NOW)


def test_two_variants_never_share_a_key(tmp_path: Path) -> None:
    text = LOG.replace("A gift", "A-gift", 1)
    assert "'A gift' and 'A-gift' would both get the key 'A-gift'" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "key"),
    [("gate_30", "gate_30"), ("Mens E-Mail", "Mens-E-Mail"), ("7) $1,000 +", "7-1-000"), ("a--b", "a--b")],
)
def test_keys_keep_what_may_be_kept(text: str, key: str) -> None:
    assert key_of(text) == key


def test_a_value_without_letters_or_digits_gets_no_key() -> None:
    with pytest.raises(UnreadableCampaign, match="no key can be made"):
        key_of("???")


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (["1", "2.5", None], "number"),
        (["true", "False"], "boolean"),
        (["2025-01-01", "2025-01-01T10:00:00Z"], "datetime"),
        (["1", "x"], "string"),
        ([None, None], "string"),
    ],
)
def test_an_attribute_gets_the_narrowest_type_of_its_values(values: list[str | None], type_: str) -> None:
    assert attribute_type(values) == type_


def test_a_value_that_does_not_fit_its_declared_attribute_is_named_with_its_row() -> None:
    number = AttributeDefinition(type="number")
    assert typed_values("age", ["3", None, "3.5"], definition=number) == [3, None, 3.5]
    with pytest.raises(UnreadableCampaign, match="row 2: 'age' must be a number, not 'old'"):
        typed_values("age", ["3", "old"], definition=number)


# Shares and versions.


def log_of(rows: list[tuple[str, float]], folder: Path) -> Campaign:
    text = "offer,opened,p\n" + "".join(f"{variant},0,{p}\n" for variant, p in rows)
    return read(folder, text, control="a", outcomes=(OutcomeColumn("opened"),), propensity="p")


def shared(counts: dict[tuple[str, str], int], folder: Path) -> Campaign:
    text = "offer,opened,tier\n" + "".join(f"{v},0,{tier}\n" * n for (tier, v), n in counts.items())
    return read(folder, text, control="a", outcomes=(OutcomeColumn("opened"),), segment="tier")


@pytest.mark.parametrize(
    ("counts", "design", "meant"),
    [
        ({("x", "a"): 90, ("x", "b"): 110, ("y", "a"): 52, ("y", "b"): 48}, "equal", [[0.5, 0.5], [0.5, 0.5]]),
        (
            {("x", "a"): 100, ("x", "b"): 900, ("y", "a"): 50, ("y", "b"): 450},
            "the same in every segment",
            [[0.1, 0.9], [0.1, 0.9]],
        ),
        (
            {("x", "a"): 100, ("x", "b"): 900, ("y", "a"): 250, ("y", "b"): 250},
            "by segment",
            [[0.1, 0.9], [0.5, 0.5]],
        ),
    ],
)
def test_the_simplest_design_that_the_counts_allow_is_taken_as_meant(
    tmp_path: Path, counts: dict[tuple[str, str], int], design: str, meant: list[list[float]]
) -> None:
    campaign = shared(counts, tmp_path)
    assert campaign.shares is not None
    assert campaign.shares.design == design
    np.testing.assert_allclose([weights[0] for weights in versions_of(campaign).weights], meant)


def test_observed_propensities_are_the_shares_of_the_log(tmp_path: Path) -> None:
    campaign = shared({("x", "a"): 90, ("x", "b"): 110, ("y", "a"): 52, ("y", "b"): 48}, tmp_path)
    np.testing.assert_allclose(sorted(set(campaign.propensity)), [142 / 300, 158 / 300])


def test_two_variants_say_their_weights_in_each_row(tmp_path: Path) -> None:
    versions = versions_of(log_of([("a", 0.5), ("b", 0.2), ("a", 0.8), ("b", 0.5)], tmp_path))
    assert versions.of_row.tolist() == [1, 2, 2, 1]
    np.testing.assert_allclose(versions.weights[0], [[0.5, 0.5], [0.8, 0.2]])


def test_a_row_that_contradicts_the_weights_starts_the_next_version(tmp_path: Path) -> None:
    rows = [("a", 0.4), ("b", 0.4), ("c", 0.2), ("b", 0.6), ("a", 0.1), ("b", 0.6)]
    versions = versions_of(log_of(rows, tmp_path))
    assert versions.of_row.tolist() == [1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(versions.weights[0], [[0.4, 0.4, 0.2], [0.1, 0.6, 0.3]])


def test_propensities_that_add_up_to_something_else_are_refused(tmp_path: Path) -> None:
    campaign = log_of([("a", 0.4), ("b", 0.4), ("c", 0.5)], tmp_path)
    with pytest.raises(UnreadableCampaign, match=r"row 1: the propensities .* add up to 1\.3, not 1"):
        versions_of(campaign)
