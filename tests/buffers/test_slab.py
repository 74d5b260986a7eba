"""The slab: aligned, zero, cut into frames whose end is noticed exactly."""

from __future__ import annotations

import gc
import mmap
import weakref

import numpy as np
import pytest

from uringblob.buffers.slab import HUGE_PAGE_SIZE, Slab


@pytest.mark.parametrize(("frame_size", "count"), [(4096, 1), (4096, 600), (524288, 5), (1 << 24, 1)])
def test_geometry(frame_size, count):
    slab = Slab(frame_size, count)
    assert slab.address % HUGE_PAGE_SIZE == 0
    assert slab.size == frame_size * count
    last = slab.frame(count - 1, 3)
    assert last.address == slab.address + slab.size - frame_size
    assert (len(last.view), last.size, last.buf_index) == (frame_size, frame_size, 3)
    assert bytes(last.view) == bytes(frame_size)


@pytest.mark.parametrize(("frame_size", "count"), [(0, 1), (4096, 0), (-4096, 1)])
def test_a_slab_needs_frames(frame_size, count):
    with pytest.raises(ValueError, match="needs frames"):
        Slab(frame_size, count)


@pytest.mark.parametrize("index", [-1, 4])
def test_frames_outside_are_refused(index):
    slab = Slab(4096, 4)
    with pytest.raises(IndexError):
        slab.frame(index)
    with pytest.raises(IndexError):
        slab.exporter(index, dict.fromkeys(range(4)).pop)


def test_an_exporter_covers_its_frame_and_no_other():
    slab = Slab(4096, 3)
    exporter = slab.exporter(1, {1: 0}.pop)
    view = memoryview(exporter)
    assert (view.format, view.readonly, view.nbytes, view.contiguous) == ("B", False, 4096, True)
    view[:] = b"x" * 4096
    assert [bytes(slab.frame(i).view[::4095]) for i in range(3)] == [b"\0\0", b"xx", b"\0\0"]


@pytest.mark.parametrize(
    "derive",
    [lambda view: view[7:9], lambda view: view.cast("Q"), lambda view: np.frombuffer(view, "u4")[3:]],
    ids=["slice", "cast", "array"],
)
def test_the_frame_is_free_when_the_last_view_of_it_ends(derive):
    leased = {2: "mine", 3: "another's"}
    slab = Slab(4096, 4)
    exporter = slab.exporter(2, leased.pop)
    seen = weakref.ref(exporter)
    derived = derive(memoryview(exporter))
    del exporter
    gc.collect()
    assert seen() is not None
    assert 2 in leased
    del derived
    gc.collect()
    assert seen() is None
    assert leased == {3: "another's"}


def test_the_mapping_outlives_the_slab_while_a_view_lives():
    leased = {1: "mine"}
    slab = Slab(4096, 2)
    view = memoryview(slab.exporter(1, leased.pop))
    del slab
    gc.collect()
    view[-1] = 9
    assert view[-1] == 9
    del view
    gc.collect()
    assert not leased


def test_discarded_frames_are_zero_and_the_others_untouched():
    slab = Slab(4096, 600)
    for index in range(600):
        slab.frame(index).view[0] = 1
    slab.discard(300)
    assert [slab.frame(index).view[0] for index in (0, 299, 300, 599)] == [1, 1, 0, 0]
    slab.discard(600)
    slab.discard(0)
    assert slab.frame(0).view[0] == 0


def test_without_huge_pages_it_works_and_says_so(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    slab = Slab(4096, 2)
    assert not slab.huge
    assert "small pages" in repr(slab)
    slab.frame(1).view[:] = b"y" * 4096


def test_huge_pages_refused_are_no_failure(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345)
    assert not Slab(4096, 2).huge
