"""What has changed and is not in the map yet: for one guid, for a group, for who lists a moment."""

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

    ``pending`` is the pending change it makes durable (from ``flush``), ``replaces`` the pending
    change that it overrules (from ``commit``).
    """

    __slots__ = ("entry", "pending", "replaces")

    def __init__(
        self, entry: int | None, pending: Pending | None = None, replaces: Pending | None = None
    ) -> None:
        self.entry = entry
        self.pending = pending
        self.replaces = replaces


class Moment:
    """What was visible when it began, for whoever lists the names a few parts at a time.

    ``was`` says of each guid that has changed since whether it was visible then.
    """

    __slots__ = ("was",)

    def __init__(self) -> None:
        self.was: Shards[bool] = Shards()
