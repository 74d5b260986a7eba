"""Row 11: mutated store files; ``tests/fuzz/atheris_harness.py`` is its coverage-guided twin."""

from __future__ import annotations

from fuzz.attack import attack
from torture.rows import Lot, row

MUTANTS_A_STEP = 500


@row(
    11,
    "a hostile or mutated file",
    unit="mutations",
    ci="20,000 mutations",
    release="24 h of a coverage-guided fuzzer",
    share=1,
    lots=2,
    unobserved="the monitor believes headers, as the format page allows; here they lie",
)
def mutants(lot: Lot):
    for seed in lot.seeds():
        yield {"mutations": attack(seed, MUTANTS_A_STEP).total()}
