"""``make torture``: the fault rows at release figures, for as long as you like.

::

    make torture SECONDS=1200 SEED=1            every row, sharing the time among them
    make torture SECONDS=60 ROWS=2,9            two rows only
    make torture TORTURE_ARGS='--json last.json --markdown last.md'

**How a row registers itself.**  Put it into a module ``tests/torture/row_<something>.py``; each such
module is imported and each function decorated with :func:`torture.rows.row` becomes a row, or one
more part of a row::

    from torture.rows import Lot, row

    @row(2, "power cut", unit="disk images", ci="100,000", release=10_000_000, share=6, lots=2)
    def power_cuts(lot: Lot):
        for seed in lot.seeds():                  # an endless row
            yield {"disk images": torture(seed)}  # what this step did; at least once in a few seconds

    @row(10, "a bad group, last or in the middle", unit="bytes", ci="every byte", release="every byte")
    def every_byte(lot: Lot):
        for byte in lot.mine(range(4096)):        # a row that comes to an end
            ...
            yield {"bytes": 1}

* Counts are added up; ``unit`` is the one that ``release`` (a number, or "every ...") is about.  A row
  whose figure is "every ..." has reached it when all its lots came to their end.
* A failure is an exception.  The runner prints it with the line that replays it: step ``i`` of lot
  ``k`` has the seed ``SEED + k * 10**9 + i``, so ``make torture ROWS=2 SEED=<that>`` begins with the
  failing step.  An exception that says "replay: ..." itself is printed as it is.
* ``lots`` run in processes of their own, at the same time where there are processors: the seeds of
  :meth:`~torture.rows.Lot.seeds` and the items of :meth:`~torture.rows.Lot.mine` are shared out.
* ``share`` weighs the row's time against the other rows'; time that a row leaves goes to the others.
* ``lot.directory`` is an empty directory on a real disk, ``lot.left()`` the seconds that are left: a
  step that cannot be short (a soak, a fuzzer) ends by it.
* Every store is watched by the order monitor, unless the row says why not (``unobserved``).
* ``needs`` may name a function that says why the row cannot run here, or returns "".
"""
