"""``uringblob bench``: measures the store beside a bare ring, fio and peers.

Uses only public names of uringblob.  From the bottom up:

* ``load``, ``sample``, ``drive``: what a contender is asked to do, what a turn yields, who drives it;
* ``contenders``: everything that is measured, each used as its documentation advises;
* ``interleave``: the contenders of a comparison take turns, for several rounds, in one run;
* ``measures``: comparisons with a target; ``sweeps``: comparisons over one parameter;
* ``report``: JSON, a table for the terminal, plots, Markdown.
"""
