"""``uringblob bench``: a benchmark suite for fixed-buffer I/O, with the store, a bare ring, fio and peers.

Needs the extra ``bench``; nothing in the library imports it.  Read from the bottom up:

* ``load``, ``sample``, ``drive``: what is asked of a subject, what is learned, who drives it;
* ``subjects``: everything that is measured, each used as its documentation advises;
* ``alternate``: the parties of a comparison take turns, for several rounds, in one run;
* ``measures``: named comparisons with a target, and sweeps over one parameter;
* ``report``: JSON, a table for the terminal, plots, Markdown.
"""

from uringblob_bench.command import add_arguments, main, run

__all__ = ["add_arguments", "main", "run"]
