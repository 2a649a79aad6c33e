"""No file names the machine that it was written on, nor the index that its packages came from."""

import re

import pytest

from tests.repo.sources import ROOT, text_files

REGISTRY = re.compile(
    r"\b(?:pypi|pythonhosted|npmjs|anaconda|conda)\.(?:org|com|io)\b"
    r"|https?://[^\s/]*(?:artifactory|nexus|devpi|mirror)",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:home|root|Users|work|mnt|private|opt/wheels)/\w")
ADDRESS_IN_LOCK = re.compile(r"://|--(?:extra-)?index-url|--find-links|--trusted-host|@ file:")


@pytest.mark.parametrize("forbidden", [REGISTRY, MACHINE_PATH], ids=["registry", "machine path"])
def test_no_file_names_a_registry_or_a_path_of_one_machine(forbidden: re.Pattern[str]) -> None:
    wrong = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if forbidden.search(line)
    ]
    assert wrong == []


def test_the_lock_has_pinned_versions_and_no_addresses() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if ADDRESS_IN_LOCK.search(line)] == []
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert [line for line in pins if not re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", line)] == []


@pytest.mark.parametrize("parts", [("https://py", "pi.org/simple"), ("files.python", "hosted.org")])
def test_a_registry_is_recognised(parts: tuple[str, str]) -> None:
    assert REGISTRY.search("".join(parts))


@pytest.mark.parametrize("parts", [("open('/ho", "me/ann/x')"), ("sqlite:////ro", "ot/x.db")])
def test_a_machine_path_is_recognised(parts: tuple[str, str]) -> None:
    assert MACHINE_PATH.search("".join(parts))
