"""All interleavings of a reader and the store's thread, statement by statement, over the real source.

Chosen functions of some modules become generators that stop before each of their statements, and
each call of one of them runs it in the same manner.  So a thread is a generator, and a schedule is
the order in which they are stepped.  States that were seen are not explored again; how many
schedules lead through them is counted.
"""

from __future__ import annotations

import ast
import collections
import functools
import inspect
import sys
import types

from uringblob.store import caller_reads
from uringblob.store.index import blob_index, durable_map, moments, shards, slots

STEPPED = {
    "read", "_read", "register", "unregister", "_notify", "close",
    "retire", "confirm", "_free_retired", "_drain", "try_free", "_is_read_by_caller", "awaits_readers",
    "find", "find_below", "find_durable", "keep", "remember", "end_moment", "hold", "release", "publish", "publish_deletion", "_replace_pending", "_retire_unlogged",
    "finish_group", "mark_slot_live", "show_group", "apply_change", "end_group", "_find_applying", "_end_pending", "_store_durable", "_store_in_base", "read_now",
}  # fmt: skip


class _Stepping(ast.NodeTransformer):
    """Stop before each statement of the chosen functions; step through their calls of each other."""

    def __init__(self):
        self.inside = False

    def _function(self, node):
        if node.name not in STEPPED or any(isinstance(d, ast.Name) for d in node.decorator_list):
            return node
        self.inside = True
        self.generic_visit(node)
        self.inside = False
        made = ast.FunctionDef(**{name: getattr(node, name, None) for name in ast.FunctionDef._fields})
        made.body = self._stopped(node.body)
        return made

    visit_FunctionDef = visit_AsyncFunctionDef = _function  # noqa: N815 - the names that ast looks for

    def _stopped(self, body):
        stopped = []
        for statement in body:
            for name in ("body", "orelse", "finalbody"):
                if getattr(statement, name, None):
                    setattr(statement, name, self._stopped(getattr(statement, name)))
            stopped += [ast.Expr(ast.Yield(None)), statement]
        return stopped

    def visit_Call(self, node):
        self.generic_visit(node)
        function = node.func  # a method, or a local name of one
        name = getattr(function, "attr", None) or getattr(function, "id", None)
        return ast.YieldFrom(node) if self.inside and name in STEPPED else node

    def visit_Await(self, node):
        return ast.YieldFrom(ast.Call(ast.Name("_wait", ast.Load()), [node.value], []))


def _wait(completion):
    while not completion.done:
        yield "blocked"


class Promise:
    def __init__(self, loop):
        self.done = False

    def resolve(self, _result):
        self.done = True


def _imports_any(node, names):
    """Whether ``node`` imports one of ``names``, whose twin a class may inherit from."""
    return isinstance(node, ast.ImportFrom) and any(alias.name in names for alias in node.names)


def load(*changes):
    """Return the modules' stepped twins; ``changes`` are replacements in their source."""
    modules = (slots, moments, durable_map, blob_index, caller_reads)
    sources = {module: inspect.getsource(module) for module in modules}
    for old, new in changes:
        assert sum(source.count(old) for source in sources.values()) == 1, old
        sources = {module: source.replace(old, new) for module, source in sources.items()}
    twins = types.SimpleNamespace()
    for module, source in sources.items():
        tree = ast.fix_missing_locations(_Stepping().visit(ast.parse(source)))
        tree.body = [node for node in tree.body if not _imports_any(node, vars(twins))]
        space = {"__name__": f"stepped.{module.__name__}", "_wait": _wait, **vars(twins)}
        exec(compile(tree, f"<stepped {module.__name__}>", "exec"), space)
        space.update(vars(twins), Completion=Promise)
        twins.__dict__.update(
            {
                name: space[name]
                for name in (
                    "SlotTable",
                    "Moment",
                    "Moments",
                    "DurableMap",
                    "BlobIndex",
                    "CallerReads",
                    "CallerRead",
                )
                if name in space
            }
        )
    return twins


class Loop:
    """What the store's thread is asked to call."""

    def __init__(self):
        self.calls = collections.deque()
        self.timers = []

    def call_soon_threadsafe(self, function, *args):
        self.calls.append((function, args))

    def call_later(self, _delay, function, *args):
        self.timers.append((function, args))

    def fire_timers(self):
        for function, args in self.timers:
            function(*args)
        self.timers.clear()

    def is_closed(self):
        return False


def _digest(value, depth=0):
    """Describe ``value`` so that equal states are equal."""
    if isinstance(value, (int, bytes, str, type(None))):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        if frame is None:
            return "over"
        names = {name: _digest(local, 5) for name, local in frame.f_locals.items()}
        return (
            frame.f_code.co_name,
            frame.f_lasti,
            tuple(sorted(names.items(), key=repr)),
            _digest(value.gi_yieldfrom, 1),
        )
    if isinstance(value, shards.Shards):
        value = dict(value.items())
    if isinstance(value, dict):
        return tuple((_digest(k, 5), _digest(v, depth + 1)) for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(map(repr, value)))
    if isinstance(value, (list, tuple, collections.deque)):
        return tuple(_digest(item, depth + 1) for item in value)
    if depth < 4 and hasattr(value, "__slots__"):
        return tuple(_digest(getattr(value, name), depth + 1) for name in value.__slots__ if name != "thread")
    return type(value).__name__


def explore(make):
    """Step ``make()``'s threads in every order; return (states, schedules).

    A world has ``threads`` (name to generator), ``shared()``, ``check()`` after each step, and
    ``end()`` when all are over.  What is raised names the schedule.
    """
    nexts = {}
    stack = [((), None)]
    first = None
    while stack:
        schedule, before = stack.pop()
        world = make()
        try:
            for choice in schedule:
                world.step(choice)
            while True:  # on from here, as long as it is new
                key = world.key()
                first = key if first is None else first
                if before is not None:
                    nexts[before].append(key)
                if key in nexts:
                    break
                nexts[key] = []
                choices = world.choices()
                if not choices:
                    world.end()
                    break
                stack += [((*schedule, choice), key) for choice in choices[1:]]
                before, schedule = key, (*schedule, choices[0])
                world.step(choices[0])
        except Exception as error:
            raise AssertionError(f"{error!r}; replay: {''.join(schedule)}") from error
        finally:
            world.wind_up()

    @functools.cache
    def ways(key):
        return sum(map(ways, nexts[key])) if nexts[key] else 1

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return len(nexts), ways(first)
    finally:
        sys.setrecursionlimit(limit)
