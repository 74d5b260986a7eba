"""Planted bugs of commits on condition: who is refused, by what, and when."""

from __future__ import annotations

import contextlib
from unittest import mock

from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.log.group import Group


@contextlib.contextmanager
def conditions_checked_against_what_readers_see():
    """The members before it in its group are not looked at."""

    def find_in_group(self, name, _change, _successor):
        return self.find(name)

    with mock.patch.object(BlobIndex, "find_in_group", find_in_group):
        yield


@contextlib.contextmanager
def refused_member_takes_part():
    async def left_out(_self, _member, _joined):
        pass

    with mock.patch.object(Group, "_leave_out", left_out):
        yield


@contextlib.contextmanager
def refused_before_the_group_is_durable():
    """What the refusal says may be another member's change, which a crash takes back."""
    leave_out = Group._leave_out

    async def at_once(self, member, joined):
        await leave_out(self, member, joined)
        member.end.reject(self.refused[member])

    with mock.patch.object(Group, "_leave_out", at_once):
        yield


@contextlib.contextmanager
def refused_member_leaves_a_gap():
    """What its changes superseded in the group is not put back."""
    leave_out = Group._leave_out

    async def gap(self, member, joined):
        await leave_out(self, member, {name: (None, change) for name, (_, change) in joined.items()})

    with mock.patch.object(Group, "_leave_out", gap):
        yield


PLANTED_IN_CONDITIONS = dict.fromkeys(
    (
        conditions_checked_against_what_readers_see,
        refused_member_takes_part,
        refused_before_the_group_is_durable,
        refused_member_leaves_a_gap,
    ),
    "races",
)
