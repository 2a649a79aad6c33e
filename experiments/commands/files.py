"""Lists as files on the command line: what they hold by their endings, and pairs given as NAME=VALUE."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from experiments.errors import FieldError, InvalidInput
from experiments.lists.reading import Encoding, Form

_ENDINGS: Final[dict[str, Form]] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_PACKED: Final[dict[str, Encoding]] = {".gz": "gzip", ".zst": "zstd"}


def kind_of(path: Path) -> tuple[Form, Encoding]:
    """What a file holds and how it is packed, by its endings.

    Raises:
        InvalidInput: Other endings.
    """
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    encoding = _PACKED.get(endings[-1] if endings else "", "identity")
    if encoding != "identity":
        endings = endings[:-1]
    form = _ENDINGS.get(endings[-1] if endings else "")
    if form is None or (form == "parquet" and encoding != "identity"):
        raise InvalidInput([FieldError("/file", f"must end in {', '.join(_ENDINGS)}, not as {path.name}")])
    return form, encoding


def beside(file: Path, word: str) -> Path:
    """The file with a word before its ending, unpacked."""
    _, encoding = kind_of(file)
    whole = file.with_suffix("") if encoding != "identity" else file
    return whole.with_suffix(f".{word}{whole.suffix}")


def check_output(target: Path, *, file: Path, forms: Collection[Form] = tuple(_ENDINGS.values())) -> Form:
    """What an output is to hold; better refused now than after an hour.

    Raises:
        InvalidInput: Another ending (it is written unpacked), the list itself, or a folder that isn't there.
    """
    endings = [ending for ending, form in _ENDINGS.items() if form in forms]
    form = _ENDINGS.get(target.suffix.lower())
    wrong = []
    if form is None or form not in forms:
        wrong.append(f"must end in {', '.join(endings)}, not as {target.name}")
    elif target.exists() and target.samefile(file):
        wrong.append(f"is the list itself, {target}")
    elif not target.parent.is_dir():
        wrong.append(f"lies in a folder that isn't there, {target.parent}")
    if wrong or form is None:
        raise InvalidInput([FieldError("/output", why) for why in wrong])
    return form


def pairs_of(name: str, given: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE options as a mapping.

    Raises:
        InvalidInput: One without a sign of equality.
    """
    pairs = [one.partition("=") for one in given]
    wrong = [FieldError(f"/{name}", f"must be NAME=VALUE, not {left}") for left, sign, _ in pairs if not sign]
    if wrong:
        raise InvalidInput(wrong)
    return {left: right for left, _, right in pairs}
