"""Changes that are not in the durable map yet: of one guid, of a group."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol


@dataclasses.dataclass(eq=False, slots=True)
class Pending:
    """One visible change that no durable group holds: a new frame, or a deletion (``None``)."""

    entry: int | None
    synced: bool  #: the frame's bytes are on the medium already
    grouped: bool = False  #: a group in flight carries this change


@dataclasses.dataclass(eq=False, slots=True)
class Change:
    """What one group does to one guid.

    ``pending`` is the pending change that it makes durable (of a flush), ``replaces`` the pending
    change that it overrules (of a commit).  ``moves`` is the entry whose frame it has in another slot: it
    gives way to any other change.
    """

    entry: int | None
    pending: Pending | None = None
    replaces: Pending | None = None
    moves: int | None = None


#: What must hold for a commit to be applied: of each guid the checksum, or that there is no blob (``None``).
Conditions = Sequence[tuple[bytes, int | None]]


class Changing(Protocol):
    """What one commit changes: packed entries by guid, and deletions."""

    entries: Sequence[tuple[bytes, int]]
    deletes: Sequence[bytes]


def list_or_not(guids: dict[bytes, None], guid: bytes, *, listed: bool) -> None:
    """Add ``guid`` to ``guids`` if it is ``listed``, and else remove it."""
    if listed:
        guids[guid] = None
    else:
        guids.pop(guid, None)
