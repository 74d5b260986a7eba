"""Instances of an untracked class cost the garbage collector nothing, and are as any other instances."""

from __future__ import annotations

import copy
import gc
import pickle
import sys

import pytest

from uringblob import BlobGuid
from uringblob.guid import known_guids
from uringblob.untracked import untracked

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython tracks instances by their type"
)


@untracked
class Name(bytes):
    """A name."""

    __slots__ = ()

    @property
    def length(self):
        return len(self)

    @classmethod
    def empty(cls):
        return cls()

    def __repr__(self):
        return "a name"


class Longer(Name):
    def __repr__(self):
        return f"longer than {super().__repr__()}"


def test_instances_are_not_tracked():
    assert not gc.is_tracked(Name(b"x"))


def test_making_many_guids_starts_no_collection():
    values = [n.to_bytes(16, "big") for n in range(10_000)]
    runs = []
    gc.collect()
    gc.callbacks.append(lambda phase, info: runs.append((phase, info)))
    try:
        guids = known_guids(values)
    finally:
        del gc.callbacks[-1]
    assert runs == []
    assert guids == values
    assert {type(guid) for guid in guids} == {BlobGuid}


def test_the_class_is_as_it_was_written():
    assert (Name.__name__, Name.__qualname__, Name.__module__) == ("Name", "Name", __name__)
    assert (Name.__doc__, Name.__mro__) == ("A name.", (Name, bytes, object))
    assert (Name(b"xy").length, Name.empty(), repr(Name(b"x"))) == (2, b"", "a name")
    assert (Name(b"x"), hash(Name(b"x"))) == (b"x", hash(b"x"))
    with pytest.raises(AttributeError):
        Name(b"x").other = 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda name: pickle.loads(pickle.dumps(name))])
def test_a_copy_is_of_the_same_class(copied):
    name = copied(Name(b"x"))
    assert (type(name), name) == (Name, b"x")


def test_a_subclass_is_an_ordinary_class():
    name = Longer(b"x")
    assert (repr(name), name.length, isinstance(name, Name)) == ("longer than a name", 1, True)


def test_the_class_goes_on_where_python_is_not_cpython(monkeypatch):
    monkeypatch.setattr(sys.implementation, "name", "other")

    class Other(bytes):
        __slots__ = ()

    assert untracked(Other) is Other
