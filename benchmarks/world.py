"""What the benchmarks decide on: a segment rule of three conditions, three variants, with and without a holdout."""

from typing import Any, Final

from sqlalchemy import Engine, text

from experiments.access.keys import create_key
from experiments.catalog import definition_store, experiment_store, lifecycle
from experiments.database import migrate, open_engine, transaction

PLAIN: Final = "hero"  # one row a decision
HELD_OUT: Final = "hero-held-out"  # with a holdout of 5 %: the customer's enrolment is a second row
ATTRIBUTES: Final[dict[str, Any]] = {"lifetime_value": 800, "country": "DE", "orders": 0, "first_name": "Ann"}
_ACTOR: Final = "benchmark"
_TYPES: Final = {"lifetime_value": "number", "country": "string", "orders": "number", "first_name": "string"}
_RULE: Final = {
    "all": [
        {"attribute": "lifetime_value", "gte": 500},
        {"attribute": "country", "in": ["DE", "AT"]},
        {"not": {"attribute": "orders", "gt": 0}},
    ]
}
_VARIANTS: Final = [
    {"key": key, "content": {"text": f"Hi {{{{ first_name | default('there') }}}}, {key}"}, "is_control": key == "a"}
    for key in ("a", "b", "c")
]
# Random ids of the series, as its hash would give; in order, so that ten million take a minute.
_PRELOAD: Final = {
    "sqlite": """
        WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :n_rows),
        fresh AS (SELECT n, CAST(:prefix || randomblob(12) AS BLOB) AS id FROM number ORDER BY id)
        INSERT INTO decision (id, customer_id, segment, variant, allocation_version, propensity, decided_at,
            lacks_attribute, late, contradicted)
        SELECT id, 'preloaded-' || n, 'vip', 'a', 1, 1.0 / 3, unixepoch() * 1000000, 0, 0, 0 FROM fresh
    """,
    "postgresql": """
        INSERT INTO decision (id, customer_id, segment, variant, allocation_version, propensity, decided_at,
            lacks_attribute, late, contradicted)
        SELECT CAST(:prefix AS bytea) || substr(sha256(CAST(CAST(n AS text) AS bytea)), 1, 12) AS id,
            'preloaded-' || n, 'vip', 'a', 1, 1.0 / 3, now(), false, false, false
        FROM generate_series(1, CAST(:n_rows AS bigint)) AS n ORDER BY id
    """,
}


def build(url: str, *, n_preloaded: int = 0) -> str:
    """Migrate a new database, define and start everything, and put ``n_preloaded`` decisions there; returns a key."""
    engine = open_engine(url)
    try:
        migrate(engine)
        secret = _define(engine)
        if n_preloaded:
            _preload(engine, n_preloaded)
    finally:
        engine.dispose()
    return secret


def _define(engine: Engine) -> str:
    with transaction(engine) as session:
        for key, type_ in _TYPES.items():
            definition_store.put_attribute(session, key, payload={"type": type_}, actor=_ACTOR)
        segments = {"segments": [{"key": "vip", "rule": _RULE}], "otherwise": "everyone-else"}
        definition_store.put_segmentation(session, "value", payload=segments, actor=_ACTOR)
        for placement, share in ((PLAIN, 0.0), (HELD_OUT, 0.05)):
            payload = {
                "channel": "web",
                "segmentation": "value",
                "format": "text",
                "holdout": {"share": share, "gets": "default"},
                "default": {"key": "plain", "content": {"text": "Welcome!"}},
            }
            definition_store.put_placement(session, placement, payload=payload, actor=_ACTOR)
            experiment = {"placement": placement, "unit": "customer", "goal": "click", "variants": _VARIANTS}
            experiment_store.put_experiment(session, placement, payload=experiment, actor=_ACTOR)
            lifecycle.start(session, placement, actor=_ACTOR)
        _, secret = create_key(session, "benchmark", scopes=["decide"], actor=_ACTOR)
    return secret


def _preload(engine: Engine, n_rows: int) -> None:
    with engine.begin() as connection:
        find = text("SELECT series FROM experiment WHERE key = :key")
        series = connection.execute(find, {"key": PLAIN}).scalar_one()
        connection.execute(text(_PRELOAD[engine.dialect.name]), {"prefix": series.to_bytes(4, "big"), "n_rows": n_rows})
