"""What only some fault tests need."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def sqlite_file(sqlite_template: Path, tmp_path: Path) -> Path:
    """A fresh, migrated SQLite file: for faults that only SQLite has."""
    return Path(shutil.copyfile(sqlite_template, tmp_path / "shop.db"))
