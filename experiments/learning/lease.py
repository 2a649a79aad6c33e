"""Leases: one process at a time does a job, on the database's clock, with a token that fences off earlier holders.

A holder that was paused (by the machine, or a debugger) may wake up after its lease has passed to another. It therefore
checks its token inside the very transaction that writes; the check locks the lease, so nobody takes it over before that
commits.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlmodel import Session

from experiments import tables
from experiments.database import database_now, upsert
from experiments.errors import LeaseLost

LEARNING: Final = "learn"


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that is this process's until another takes it, at the earliest when its time has passed."""

    name: str
    token: int


def holder_name() -> str:
    """A name for this process that no other has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def take(session: Session, name: str, *, holder: str, seconds: float) -> Lease | None:
    """Take a lease that is free or has run out, or renew one's own; None while another holds it.

    Args:
        session: One that may write; the lease is taken when it commits.
        name: Of the job.
        holder: Unlike that of any other process.
        seconds: How long nobody else may take it.
    """
    row = _locked(session, name)
    now = database_now(session)
    if row.holder != holder:
        if row.expires_at > now:
            return None
        row.holder = holder
        row.token += 1
    row.expires_at = now + timedelta(seconds=seconds)
    session.flush()
    return Lease(name, row.token)


def check(session: Session, lease: Lease) -> None:
    """Make sure that no other has taken a lease since, and that none does before this transaction ends.

    Raises:
        LeaseLost: Another holder has it: write nothing.
    """
    if _locked(session, lease.name).token != lease.token:
        raise LeaseLost(lease.name)


def release(session: Session, name: str, *, holder: str) -> None:
    """Let the next holder take a lease at once; nothing happens when another than ``holder`` has it."""
    row = _locked(session, name)
    if row.holder == holder:
        row.expires_at = database_now(session)
        session.flush()


def _locked(session: Session, name: str) -> tables.Lease:
    """The lease's row, locked; made, free for all, if nobody has ever held it."""
    row = session.get(tables.Lease, name, with_for_update=True)
    if row is None:
        free = {"name": name, "holder": "", "token": 0, "expires_at": database_now(session)}
        connection = session.connection()
        connection.execute(upsert(connection, tables.Lease).values(free).on_conflict_do_nothing())
        row = session.get_one(tables.Lease, name, with_for_update=True)
    return row
