"""Expected values: "A decision's life", step 3, and the words of the HTTP contract."""

import pytest
from sqlmodel import Session, select

from experiments.catalog import lifecycle, overrides
from experiments.errors import InvalidInput, OverrideNotFound, PlacementNotFound, VariantNotFound
from experiments.snapshot.load import load_snapshot
from experiments.tables import Audit
from tests.experiments.shop import ACTOR, put_experiment, put_shop


@pytest.fixture
def shop(session: Session) -> Session:
    put_shop(session)
    return session


def put(session: Session, customer_id: str, variant: str) -> None:
    overrides.put_override(session, "welcome-subject", customer_id=customer_id, variant=variant, actor=ACTOR)


def test_an_override_reaches_the_snapshot_and_the_audit(shop: Session) -> None:
    put_experiment(shop)
    lifecycle.start(shop, "subject-1", actor=ACTOR)
    put(shop, "qa-1", "plain")
    put(shop, "qa-1", "b")
    assert load_snapshot(shop).overrides == {("welcome-subject", "qa-1"): "b"}
    entries = shop.exec(select(Audit).where(Audit.action == "override").order_by("id")).all()
    assert [(row.detail["before"], row.detail["after"]) for row in entries] == [(None, "plain"), ("plain", "b")]


def test_an_override_names_a_variant_that_the_placement_has(shop: Session) -> None:
    put_experiment(shop)
    with pytest.raises(VariantNotFound):
        put(shop, "qa-1", "b")
    with pytest.raises(PlacementNotFound):
        overrides.put_override(shop, "nowhere", customer_id="qa-1", variant="plain", actor=ACTOR)


def test_a_removed_override_is_gone(shop: Session) -> None:
    put(shop, "qa-1", "plain")
    overrides.delete_override(shop, "welcome-subject", customer_id="qa-1", actor=ACTOR)
    assert overrides.list_overrides(shop, "welcome-subject") == []
    with pytest.raises(OverrideNotFound):
        overrides.delete_override(shop, "welcome-subject", customer_id="qa-1", actor=ACTOR)


def test_overrides_are_listed_by_customer(shop: Session) -> None:
    for customer_id in ("qa-2", "qa-1", "qa-3"):
        put(shop, customer_id, "plain")
    page = overrides.list_overrides(shop, "welcome-subject", limit=2)
    assert [row.customer_id for row in page] == ["qa-1", "qa-2"]
    rest = overrides.list_overrides(shop, "welcome-subject", cursor="qa-2")
    assert [row.customer_id for row in rest] == ["qa-3"]


@pytest.mark.parametrize("customer_id", ["", "a\x00", "\ud800", "x" * 257])
def test_ids_that_cannot_be_are_refused(shop: Session, customer_id: str) -> None:
    with pytest.raises(InvalidInput):
        put(shop, customer_id, "plain")
    with pytest.raises(InvalidInput):
        overrides.delete_override(shop, "welcome-subject", customer_id=customer_id, actor=ACTOR)
