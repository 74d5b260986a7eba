"""Rows 8 to 10 of the faults, repaired: of the blobs that are still intact, all are saved, and no wrong byte.

*Intact* is a blob whose frame is what was last written, and that some undamaged log block names with it.
A store that was not closed, and whose last group is damaged, may be saved as it was before that group: nothing
tells it from a torn write.
"""

from __future__ import annotations

import random

import pytest
import xxhash

import seeds
from monitor.blocks import GROUP
from salvage.damage import VICTIMS, WAYS, Patient, Saved, blocks_in
from uringblob import StoreCorrupt

pytestmark = pytest.mark.one_interpreter

DAMAGES_OF_EACH = 20


@pytest.fixture(scope="module", params=VICTIMS, ids=str)
def patient(request):
    return Patient(*request.param)


def fits(content, record) -> bool:
    return record is not None and xxhash.xxh3_64_intdigest(content) == record.checksum


def check(patient, path, raw) -> tuple[int, int]:
    """Repair ``raw``; return how many blobs were intact, and how many were saved."""
    last = patient.last_group()
    try:
        saved = Saved(path, raw)
    except StoreCorrupt:
        assert not any(blocks_in(raw, patient.store_id)), "nothing was saved, and log blocks are intact"
        return 0, 0
    report = saved.report
    readable = max(
        (block.seq for block in blocks_in(raw, patient.store_id) if block.kind == GROUP), default=0
    )
    assert report.last_group >= (last if patient.closed and report.end_known else readable - 1)
    if report.last_group < readable:
        assert not patient.closed or not report.end_known
        assert any("left out" in note for note in report.notes)

    intact = patient.intact(raw, report.last_group)
    assert {guid for guid, frame in intact.items() if saved.frames.get(guid) != frame} == set()
    for guid, content in saved.frames.items():
        assert content in patient.victim.contents[guid], f"blob {guid.hex()} holds what it never held"
    wanted = patient.state_at(report.last_group)
    stale = {guid for guid, content in saved.frames.items() if not fits(content, wanted.get(guid))}
    assert stale <= set(map(bytes, report.unproved)), "stale, and unsaid"
    if report.complete or not (report.lost or report.gaps):
        assert set(saved.frames) == set(wanted), "lost, and unsaid"
    return len(intact), len(saved.frames)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_all_that_is_intact_is_saved(patient, way, tmp_path, count_row):
    rng = random.Random(f"{seeds.number()} {way.__name__} {patient.victim}")
    intact = saved = 0
    for number in range(DAMAGES_OF_EACH):
        raw = bytearray(patient.raw)
        way(patient, raw, rng)
        try:
            counts = check(patient, str(tmp_path / "damaged"), bytes(raw))
        except Exception as error:
            raise AssertionError(f"damage {number}: {error!r}") from error
        intact, saved = intact + counts[0], saved + counts[1]
    count_row(8, **{"repairs": DAMAGES_OF_EACH, "intact blobs, all saved": intact})
    assert saved >= intact > 0


def test_an_undamaged_store_is_saved_whole(patient, tmp_path):
    saved = Saved(str(tmp_path / "store"), patient.raw)
    assert saved.frames == patient.victim.now
    assert saved.report.complete
    assert saved.report.last_group == patient.last_group()
    assert saved.frames == patient.intact(patient.raw, patient.last_group())
    assert saved.report.notes == ()
