"""Rows 8 to 10: bits that flip, writes that go astray, groups that end badly."""

from __future__ import annotations

import random

from sim import test_bits, test_last_group, test_misplaced
from sim.lives import PAGE, small_log
from sim.victim import Victim
from torture.rows import Lot, row


@row(8, "a flipped bit in a frame", unit="bits in frames", ci="10,000", release=1_000_000, share=3)
def bits_in_frames(lot: Lot):
    for seed in lot.seeds():
        rng = random.Random(seed)
        with small_log(segment_bytes=4 * PAGE, seed=seed):
            victim = Victim(
                compactions=rng.choice((0, 1, 2)), closed=rng.random() < 0.5, stamp=seed * 100_000
            )
            for slot, name in victim.frames.items():
                flips = rng.sample(test_bits.bits(slot * PAGE, PAGE), 200)
                for bit in flips:
                    test_bits.check_frame(victim, name, bit)
                yield {"bits in frames": len(flips)}


@row(
    8,
    "a flipped bit in superblocks or log",
    unit="bits of superblocks and log",
    ci="every bit of a small store",
    release="every bit of a small store",
)
def bits_of_the_log(lot: Lot):
    for compactions, closed in lot.mine(test_bits.VICTIMS):
        with small_log(segment_bytes=4 * PAGE, seed=lot.seed):
            victim = Victim(compactions=compactions, closed=closed, stamp=lot.seed * 100_000)
            yield {"bits of superblocks and log": test_bits.check_superblocks(victim)}
            yield {"bits of superblocks and log": test_bits.check_log(victim)}


@row(
    9,
    "lost, misdirected and stale writes, swapped slots, an old copy of a log segment",
    unit="astray",
    ci="every pair in a small store",
    release=100_000,
    share=1.5,
)
def astray(lot: Lot):
    for seed in lot.seeds():
        rng = random.Random(seed)
        with small_log(segment_bytes=rng.choice((3, 4, 8)) * PAGE, seed=seed):
            victim = Victim(
                compactions=rng.choice((0, 1, 2)), closed=rng.random() < 0.5, stamp=seed * 100_000
            )
            for cases in test_misplaced.CASES:
                yield {"astray": test_misplaced.Tally().try_all(victim, cases(victim))}


@row(
    10,
    "a bad last group against a bad group in the middle",
    unit="bad groups",
    ci="every byte",
    release="every byte",
)
def bad_groups(lot: Lot):
    for compactions, closed in lot.mine(test_bits.VICTIMS):
        with small_log(segment_bytes=8 * PAGE, seed=lot.seed):
            victim = Victim(compactions=compactions, closed=closed, stamp=lot.seed * 100_000)
            for check in test_last_group.CHECKS:
                yield {"bad groups": check(victim, range(PAGE))}
