"""The kernel's pool of huge pages is raised for a run and lowered by as much afterwards."""

from __future__ import annotations

import pytest

from uringblob_bench import hugepages

pytestmark = pytest.mark.one_interpreter
PAGE = 2 << 20


@pytest.fixture
def pool(monkeypatch, tmp_path):
    """A pool of our own, of which nothing is free but what was added."""
    path = tmp_path / "nr_hugepages"
    path.write_text("3\n")
    monkeypatch.setattr(hugepages, "POOL", str(path))
    monkeypatch.setattr(hugepages, "page_bytes", lambda: PAGE)
    monkeypatch.setattr(hugepages, "free_bytes", lambda: (int(path.read_text()) - 3) * PAGE)
    return path


def test_it_is_raised_by_what_is_needed_and_lowered_again(pool):
    with hugepages.reserved(5 * PAGE - 1) as words:
        assert pool.read_text() == "8"
        assert "by 5 from 3" in words
    assert pool.read_text() == "3"


def test_what_another_run_added_meanwhile_stays(pool):
    with hugepages.reserved(5 * PAGE):
        pool.write_text("18")
    assert pool.read_text() == "13"


def test_enough_is_left_alone(pool):
    pool.write_text("13")
    with hugepages.reserved(5 * PAGE) as words:
        assert pool.read_text() == "13"
        assert "were there" in words
    assert pool.read_text() == "13"


def test_who_may_not_raise_it_goes_on_without(pool):
    pool.unlink()
    pool.mkdir()
    hugepages_free = "no huge pages for fio"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hugepages, "free_bytes", lambda: 0)
        with hugepages.reserved(PAGE) as words:
            assert hugepages_free in words


@pytest.fixture
def counters(monkeypatch):
    """The kernel's counters, as a test sets them."""
    made = {"HugePages_Total": 8, "HugePages_Free": 8, "HugePages_Rsvd": 0}
    monkeypatch.setattr(hugepages, "meminfo", lambda name: made[name])
    monkeypatch.setattr(hugepages, "page_bytes", lambda: PAGE)
    return made


def test_a_reservation_counter_below_zero_reserves_nothing(counters):
    counters["HugePages_Rsvd"] = 2**64 - 5
    assert hugepages.free_bytes() == 8 * PAGE


def test_pages_that_a_dead_ring_still_holds_are_waited_for(counters):
    counters["HugePages_Free"] = 0

    def pause(_seconds):
        counters["HugePages_Free"] += 1

    assert hugepages.will_be_free(3 * PAGE, pause)
    assert counters["HugePages_Free"] == 3


def test_a_pool_that_is_too_small_is_not_waited_for(counters):
    def pause(_seconds):
        raise AssertionError("there is nothing to wait for")

    assert not hugepages.will_be_free(9 * PAGE, pause)


def test_pages_that_stay_away_are_given_up(counters, monkeypatch):
    counters["HugePages_Free"] = 0
    clock = [0.0]
    monkeypatch.setattr(hugepages.time, "monotonic", lambda: clock[0])

    def pause(_seconds):
        clock[0] += 1

    assert not hugepages.will_be_free(PAGE, pause)
