"""The demo: its truth and what it counts, the same run twice, and the whole of it through the real server."""

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.database import open_engine, reading
from experiments.demo.client import Client
from experiments.demo.loop import define_and_start, run_waves
from experiments.demo.server import is_ready, make_database, running_server
from experiments.demo.shop import SEGMENT_SHARES, TRUE_RATES, VARIANTS, Floats, count, customers, earned
from experiments.tallies.recount import all_series, recount
from tests.repo.sources import ROOT


def test_every_segment_has_another_best_variant() -> None:
    assert len(set(TRUE_RATES.argmax(axis=1))) == len(TRUE_RATES) == 3
    assert len(VARIANTS) == 4


def test_customers_come_in_the_shares_of_their_segments() -> None:
    """False alarm: 1 in 10**6 (a multinomial share is within five standard errors)."""
    drawn = customers(20_000, rng=np.random.default_rng(1))
    shares = np.bincount([customer.segment for customer in drawn]) / len(drawn)
    np.testing.assert_allclose(shares, SEGMENT_SHARES, atol=5 * (0.25 / 20_000) ** 0.5)
    assert len({customer.id for customer in drawn}) == 20_000


def test_what_was_earned_is_counted_from_the_true_rates() -> None:
    """By hand: one customer of segment 0 with variant 1 (0.40), one of segment 2 with variant 0 (0.32)."""
    found = earned(count([0, 2], [VARIANTS[1], VARIANTS[0]]))
    assert found.bandit == pytest.approx(0.40 + 0.32)
    assert found.equal_split == pytest.approx((0.24 + 0.40 + 0.29 + 0.22) / 4 + (0.32 + 0.34 + 0.50 + 0.27) / 4)
    assert found.oracle == pytest.approx(0.40 + 0.50)


def run(folder: Path, *, n_customers: int, n_waves: int) -> Floats:
    """A small demo without its end: customers by segment and variant."""
    url = f"sqlite:///{folder / 'shop.db'}"
    rng = np.random.default_rng(7)
    key = make_database(url, secret=rng.bytes(32))
    drawn = customers(n_customers, rng=rng)
    size = n_customers // n_waves
    waves = [drawn[start : start + size] for start in range(0, n_customers, size)]
    engine = open_engine(url)
    with running_server(url, log=folder / "log") as port, Client(port, key=key) as client:
        define_and_start(client)
        decided = run_waves(client, engine, waves=waves, refresh=lambda: is_ready(port), progress=lambda _n: None)
    with reading(engine) as session:
        assert [recount(session, number).differences for number in all_series(session)] == [[], []]
    engine.dispose()
    return decided


def test_the_same_seed_gives_the_same_run_and_tallies_equal_a_recount(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first, second = (run(folder, n_customers=3_000, n_waves=4) for folder in folders)
    np.testing.assert_array_equal(first, second)
    assert first.sum() == 3_000


def test_the_whole_demo_promotes_what_is_proven_and_ends_with_the_command_to_open_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.cli", "demo"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    bandit, equal_split, oracle = (
        int(number.replace(",", ""))
        for number in re.search(r"bandit ([\d,]+), equal split ([\d,]+), oracle ([\d,]+)", said).groups()  # type: ignore[union-attr]
    )
    assert equal_split < bandit < oracle
    assert said.count("is now the policy of segment") >= 2
    assert said.count("from the policy") == said.count("is now the policy of segment")
    assert said.rstrip().endswith("serve --database-url sqlite:///demo-1.db")
    with sqlite3.connect(tmp_path / "demo-1.db") as database:
        assert database.execute("SELECT count(*) FROM decision").fetchone() == (20_003,)
    database.close()


def test_the_demo_never_writes_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    path.write_text("mine")
    command = [sys.executable, "-m", "experiments.cli", "demo", "--database", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert path.read_text() == "mine"
