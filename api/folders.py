"""Folders for the lists of requests: a process that was killed leaves its own, and the next start removes them."""

import fcntl
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

_PREFIX: Final = "optimizer-list-"
_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that only this user reads, and that is some living process's: ``lock`` is held until then."""

    path: Path
    lock: IO[bytes]

    def drop(self) -> None:
        """Remove it, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


def new_folder() -> Folder:
    """A new one, where temporary files are."""
    path = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = (path / _LOCK).open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return Folder(path, lock)


def remove_abandoned() -> None:
    """Remove those of processes that have ended, whoever ended them."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with lock.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # somebody holds it, another user's, or gone meanwhile
            continue
