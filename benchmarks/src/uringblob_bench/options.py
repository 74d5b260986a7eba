"""The command line's words."""

from __future__ import annotations

import argparse

from uringblob_bench.load import MIB
from uringblob_bench.media import DIRECTORY, MEDIA, MEMORY, MEMORY_FILE_BYTES
from uringblob_bench.names import CONTENDER_NAMES, DEFAULT_CONTENDERS, SYNCS, WORKLOADS
from uringblob_bench.tune import tune_of

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
FULL_BUDGET_S, QUICK_BUDGET_S = 1200.0, 75.0
FULL_FILE_BYTES, QUICK_FILE_BYTES = 1024 * MIB, 64 * MIB


def size(text: str) -> int:
    """Read ``512k``, ``1GiB`` or a plain number of bytes.

    >>> size("512k"), size("1GiB")
    (524288, 1073741824)
    """
    lowered = text.lower().removesuffix("ib").removesuffix("b")
    unit = lowered[-1:] if lowered[-1:].isalpha() else ""
    try:
        return int(float(lowered.removesuffix(unit)) * _UNITS[unit])
    except (KeyError, OverflowError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 4096, 512k, 1GiB") from None


def numbers(text: str) -> list[int]:
    """Read ``4`` or ``1,3,9-11``."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write 4 or 1,3,9-11") from None
    return found


def media(text: str) -> list[str]:
    """Read ``directory,memory``.

    :raises argparse.ArgumentTypeError: there is no such medium.
    """
    names = text.split(",")
    if set(names) - set(MEDIA):
        raise argparse.ArgumentTypeError(f"{text!r}: write one of {', '.join(MEDIA)}, or both")
    return [name for name in MEDIA if name in names]


def media_of(args: argparse.Namespace) -> list[str]:
    """Return the media of a run: both for its measures, unless it is a quick one or a comparison of one's own."""
    return args.media or ([DIRECTORY] if args.quick or args.workload else list(MEDIA))


def contender_names(text: str) -> list[str]:
    """Read ``store,fio``.

    :raises argparse.ArgumentTypeError: there is no such contender.
    """
    names = text.split(",")
    strange = [name for name in names if name not in CONTENDER_NAMES]
    if strange:
        raise argparse.ArgumentTypeError(
            f"no contender {', '.join(strange)}: there are {', '.join(CONTENDER_NAMES)}"
        )
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every option."""
    parser.add_argument(
        "directory",
        metavar="DIRECTORY",
        nargs="?",  # --list, --render and --media memory need none
        help="where the files under test lie, in a directory of their own that is removed; it must exist",
    )
    what = parser.add_argument_group("what is run (default: all measures and all sweeps)")
    what.add_argument(
        "--measure",
        "--measures",
        dest="measures",
        type=numbers,
        metavar="N[,N-N]",
        help="only these measures",
    )
    what.add_argument(
        "--sweep", action="append", dest="sweeps", metavar="NAME", help="only this sweep (may be repeated)"
    )
    what.add_argument("--no-sweeps", action="store_true", help="measures only")
    what.add_argument(
        "--media",
        type=media,
        metavar="NAME[,NAME]",
        help="what measures run on: the directory given, and ext4 in memory, which needs root and is made and "
        "removed by the run (directory,memory; default both, of a quick run or a comparison of your own the "
        "directory; sweeps run on the first)",
    )
    what.add_argument("--list", action="store_true", help="list measures and sweeps, and go")
    _add_own(parser)
    _add_pace(parser)
    _add_setting(parser)
    out = parser.add_argument_group("what it leaves")
    out.add_argument("--output", metavar="DIR", help="write results.json, plots and results.md there")
    out.add_argument(
        "--render", metavar="FILE", help="run nothing: make plots and results.md from an earlier results.json"
    )
    out.add_argument(
        "--readme", metavar="FILE", help="put one table and one plot between the marks in this page, too"
    )
    out.add_argument("--json", metavar="FILE", help="write the JSON file there")


def _add_own(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("a comparison of your own, instead of measures and sweeps")
    own.add_argument("--workload", choices=WORKLOADS, help="what every contender does")
    own.add_argument(
        "--contender",
        "--contenders",
        "--party",
        "--parties",
        dest="contenders",
        type=contender_names,
        metavar="NAME[,NAME]",
        default=DEFAULT_CONTENDERS,
        help=f"who does it (default {DEFAULT_CONTENDERS}; there are {', '.join(CONTENDER_NAMES)})",
    )
    own.add_argument("--depth", type=int, default=32, help="frames in flight, tasks or threads (default 32)")
    own.add_argument("--batch", type=int, default=8, help="frames of one call (default 8)")
    own.add_argument(
        "--sync", choices=SYNCS, default="two-phase", help="how the bare ring makes a batch durable"
    )
    own.add_argument(
        "--wakeup", choices=("ring", "eventfd"), default="ring", help="how a ring wakes its loop"
    )
    own.add_argument(
        "--tune",
        type=tune_of,
        metavar="NAME=V[,V]",
        help="with these values of a constant of uringblob.tuning, side by side",
    )
    own.add_argument("--one-core", action="store_true", help="hold every contender on one CPU")


def _add_pace(parser: argparse.ArgumentParser) -> None:
    pace = parser.add_argument_group("how long")
    pace.add_argument(
        "--quick", action="store_true", help=f"about a minute: budget {QUICK_BUDGET_S:.0f}, small files"
    )
    pace.add_argument(
        "--budget",
        type=float,
        metavar="S",
        help=f"seconds for everything (default {FULL_BUDGET_S:.0f} a medium)",
    )
    pace.add_argument("--rounds", type=int, help="turns of each contender (default 5, quick 1)")
    pace.add_argument("--seconds", type=float, help="length of a turn (default: from the budget)")


def _add_setting(parser: argparse.ArgumentParser) -> None:
    setting = parser.add_argument_group("setting")
    setting.add_argument("--page-size", type=size, default=size("512k"), help="frame size (default 512k)")
    setting.add_argument(
        "--file-size",
        type=size,
        help=f"size of every file (default {FULL_FILE_BYTES}, quick {QUICK_FILE_BYTES}; in {MEMORY} "
        f"{MEMORY_FILE_BYTES})",
    )
    setting.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="event loop")
    setting.add_argument(
        "--no-register", action="store_true", help="plain buffers instead of registered ones"
    )
    setting.add_argument("--no-huge", action="store_true", help="4 KiB pages instead of huge pages")
    setting.add_argument("--no-verify", action="store_true", help="do not check checksums on reading")
