"""Changes that are not in the durable map yet: of one guid, of a group, since a listing began."""

from __future__ import annotations

from uringblob.store.index.shards import Shards


class Pending:
    """One visible change that no durable group holds: a new frame, or a deletion (``None``)."""

    __slots__ = ("entry", "grouped", "synced")

    def __init__(self, entry: int | None, *, synced: bool) -> None:
        self.entry = entry
        self.synced = synced  #: the frame's bytes are on the medium already
        self.grouped = False  #: a group in flight carries this change


class Change:
    """What one group does to one guid.

    ``pending`` is the pending change that it makes durable (of a flush), ``replaces`` the pending
    change that it overrules (of a commit).
    """

    __slots__ = ("entry", "pending", "replaces")

    def __init__(self, entry: int | None, pending: Pending | None = None) -> None:
        self.entry = entry
        self.pending = pending
        self.replaces: Pending | None = None


class Moment:
    """A listing in several steps: ``was`` maps each guid changed since it began to its visibility then."""

    __slots__ = ("was",)

    def __init__(self) -> None:
        self.was: Shards[bool] = Shards()
