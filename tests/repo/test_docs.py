"""What a user can set is documented, and every decision is dated."""

import re
from datetime import date

from experiments.config import Config
from tests.repo.sources import ROOT

DECISION = re.compile(r"(\d{4}-\d{2}-\d{2})-[a-z0-9]+(?:-[a-z0-9]+)*\.md")


def test_every_setting_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    settings = {f"OPTIMIZER_{name.upper()}" for name in Config.model_fields}
    assert {name for name in settings if re.search(rf"\b{name}\b", readme) is None} == set()


def test_the_readme_says_each_settings_default() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {f"| `OPTIMIZER_{name.upper()}` | `{field.default}` |" for name, field in Config.model_fields.items()}
    assert {row for row in rows if row not in readme} == set()


def test_every_setting_in_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    settings = {f"OPTIMIZER_{name.upper()}" for name in Config.model_fields}
    assert set(re.findall(r"\bOPTIMIZER_[A-Z0-9_]+\b", readme)) - settings == set()


def test_every_decision_is_dated() -> None:
    for path in (ROOT / "docs" / "decisions").iterdir():
        if path.name == "README.md":
            continue
        match = DECISION.fullmatch(path.name)
        assert match is not None, f"{path.name} is not named YYYY-MM-DD-what-was-chosen.md"
        date.fromisoformat(match.group(1))
