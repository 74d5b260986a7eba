"""The source obeys its own design: rooms and arrows, doors, names, sizes, and the paths documents mention.

A room is a folder.  ``docs/maintainers/design.md`` draws the rooms; a new file in a folder needs no entry here.
Where one file is a room of its own, it lies below or above the rest of its folder.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import uringblob

pytestmark = pytest.mark.one_interpreter

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "uringblob"

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
C_FILE_LINES_MAX = 600


#: The rooms, and what each may import from.  A file belongs to the most exact entry; a room may always
#: import from itself.  Lower rooms never see higher ones.
GROUND = (
    "errors",
    "guid",
    "untracked",
    "units",
    "logs",
    "completion",
    "wait",
    "owner",
    "limits",
    "fork",
    "tuning",
)
ENGINE_PROTOCOL = (
    *("engines.base", "engines.request", "engines.unavailable", "engines.own_descriptor"),
    *("engines.posix_calls", "engines.copy_on_write", "engines.transfers"),
)
ASYNC_STORE = ("store.async_store", "store.file_reads", "store.snapshot")
ROOMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(GROUND, ("ground",)),
    "_native": (),
    "buffers": ("ground", "_native"),
    # Public faces of what lies in buffers.
    **dict.fromkeys(("slab", "views", "checksums"), ("buffers",)),
    "api": ("ground", "buffers"),
    "metrics": ("ground", "api"),
    "traces": ("api",),
    "memory_store": ("ground", "buffers", "api"),
    "ring": ("ground", "buffers", "_native"),
    **dict.fromkeys(ENGINE_PROTOCOL, ("ground", "buffers", "engine protocol")),
    "engines.uring": ("ground", "buffers", "engine protocol", "ring"),
    "engines.pread": ("ground", "buffers", "engine protocol"),
    "engines": ("ground", "buffers", "_native", "engine protocol", "engines.uring", "engines.pread"),
    "store.format": (),
    "store.index": ("ground", "store.format"),
    "store.io": ("ground", "buffers", "engine protocol", "store.format"),
    "store.log": ("ground", "engine protocol", "store.format", "store.index", "store.io"),
    "store": (
        *("ground", "buffers", "api", "engine protocol", "engines"),
        *("store.format", "store.index", "store.io", "store.log"),
    ),
    "store.opening": (
        *("ground", "buffers", "api", "engine protocol", "engines"),
        *("store", "store.format", "store.index", "store.io", "store.log"),
    ),
    **dict.fromkeys(
        ASYNC_STORE, ("ground", "buffers", "api", "store", "store.index", "store.io", "store.opening")
    ),
    "sync": ("ground", "buffers", "api", "async store", "store.opening"),
    "remote": ("ground", "buffers", "api", "sync"),
    "tiered": ("ground", "buffers", "api", "sync"),
    "salvage": ("ground", "buffers", "api", "engine protocol", "store", "store.format", "sync"),
    "holt": ("ground", "buffers", "sync"),
    "testing.conformance": ("ground", "buffers", "api"),
    "testing.sim": (
        *("ground", "buffers", "engine protocol"),
        *("store", "store.format", "store.opening", "async store", "remote"),
    ),
    "testing": ("testing.conformance", "testing.sim"),
    # What the doctor and the other commands share.
    **dict.fromkeys(("cli.errors", "cli.stdio"), ("ground", "cli base")),
    # Looks at everything below it, to say what works and why not more.
    "cli.doctor": ("ground", "cli base", "buffers", "_native", "ring", "engine protocol", "engines", "sync"),
    "cli": ("ground", "cli base", "buffers", "api", "sync", "salvage", "holt", "remote", "tiered"),
    "__main__": ("cli",),
}
#: Entries that stand for several files.
GROUPS = {
    "ground": GROUND,
    "engine protocol": ENGINE_PROTOCOL,
    "async store": ASYNC_STORE,
    "cli base": ("cli.errors", "cli.stdio"),
}

#: Arrows against the table, one by one, with the reason.
EXCEPTIONS = {
    "store.opening.create": {"_native": "a rename that replaces nothing: the os module has none"},
}

#: The generic FFI (addresses of memory, no C of ours) is made here and nowhere else.
CFFI_USERS = {"buffers.iobuf"}
#: Beside the standard library; everything else would be a new run-time dependency.
RUN_TIME_DEPENDENCIES = {"_cffi_backend", "xxhash"}  # the first is cffi's compiled core
#: What a room may use besides: the extra that bears its name.
EXTRAS = {
    "cli": {"rich"},
    "metrics": {"prometheus_client"},
    "remote": {"obstore"},
    "traces": {"opentelemetry"},
}
#: The modules that users may import by name; ``docs/users/reference`` documents them.  All else is private.
PUBLIC_MODULES = {
    *("ring", "testing", "errors", "metrics", "traces", "completion", "remote"),
    *("guid", "slab", "views", "checksums", "tuning", "holt", "tiered"),
}

PUBLIC_NAMES = set(
    """
    PAGE_SIZE BUF_ALIGN BlobGuid AlignedBlobBuf BlobStore AsyncBlobStore MemoryBlobStore
    AsyncMemoryBlobStore FileBlobStore AsyncFileBlobStore BlobStoreError BlobNotFound BlobCorrupt
    StoreCorrupt StoreLocked StoreClosed StoreReadOnly StorePoisoned PageSizeMismatch
    EngineUnavailable BlobStoreIOError
    """.split()
)
TRAIT_METHODS = set(
    """
    read_blob write_blob delete_blob list_blobs flush alloc_blob_buf_zeroed alloc_blob_buf_uninit
    write_blobs write_blobs_with_data_sync needs_flush has_blob has_blobs iter_blobs read_blobs read_blob_range commit
    verify snapshot backup stats page_size
    """.split()
)
OPEN_OPTIONS = {
    "page_size": None,
    "create": True,
    "read_only": False,
    "engine": "auto",
    "direct": None,
    "buffers": None,
    "queue_depth": 256,
    "lock_timeout": 5.0,
    "verify": True,
    "mode": 0o600,
}
STATS_FIELDS = set(
    """
    engine engine_reason direct_io page_size blobs file_bytes allocated_bytes slots_live slots_free
    slots_pending buffers buffers_registered buffers_leased buffers_reason reads writes syncs
    bytes_read bytes_written ring_enters in_flight
    """.split()
)


# ---- reading the source ---------------------------------------------------------------------


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by dotted name ('' is the package itself), parsed."""
    return {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(name: str) -> set[str]:
    """Absolute names of everything that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def typing_only(node: ast.AST) -> bool:
    """Whether ``node`` is an ``if TYPE_CHECKING:``, whose body no running program sees."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def typing_imports_of(name: str) -> set[str]:
    """The packages that a module imports for type checkers alone."""
    blocks = [node for node in ast.walk(modules()[name]) if typing_only(node)]
    nodes = [node for block in blocks for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    return {str(node.module).split(".")[0] for node in nodes}


def own_imports_of(name: str) -> set[str]:
    """The package's modules that a module imports, without the leading 'uringblob.'."""
    found = set()
    for full in imports_of(name):
        if full.startswith("uringblob."):
            inner = full.removeprefix("uringblob.")
            # 'errors.BlobCorrupt' is a name in a module, 'store.log' may be a module itself.
            found.add(inner if inner in modules() else inner.rpartition(".")[0])
    return found - {""}


def room_of(name: str) -> str:
    """Return the room of the most exact entry: 'store.format' before 'store'."""
    entries = [entry for entry in ROOMS if f"{name}.".startswith(f"{entry}.")]
    assert entries, (
        f"src/uringblob/{name.replace('.', '/')}.py is in no room: add it to docs/maintainers/design.md and here"
    )
    entry = max(entries, key=len)
    return next((group for group, members in GROUPS.items() if entry in members), entry)


def may_import(room: str) -> set[str]:
    """Return the rooms that files of ``room`` may import from."""
    return {room, *ROOMS[GROUPS.get(room, (room,))[0]]}


def arrows() -> set[tuple[str, str]]:
    """Every arrow that is drawn in the source, from room to room."""
    drawn = {(room_of(name), room_of(other)) for name in MODULE_NAMES for other in own_imports_of(name)}
    return {(room, other) for room, other in drawn if room != other}


def in_floors(nodes: set[str], edges: set[tuple[str, str]]) -> list[set[str]]:
    """Return the nodes from the ground up, each above all it points to; what is in a circle is left out."""
    floors: list[set[str]] = []
    placed: set[str] = set()
    while free := {n for n in nodes - placed if all(b in placed for a, b in edges if a == n)}:
        floors.append(free)
        placed |= free
    return floors


def text_files() -> list[Path]:
    """Every file that people read."""
    folders = ["src", "tests", "benchmarks/src", "benchmarks/tests", "examples", "docs", "tools", ".ci"]
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found += [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".py", ".in"}]
    found += [ROOT / "Makefile", ROOT / "Dockerfile"]
    kinds = {".py", ".pyi", ".c", ".h", ".md", ".toml", ".in", ".sh", ""}
    return [
        path for path in found if path.is_file() and path.suffix in kinds and path.stat().st_size < 1 << 20
    ]


MODULE_NAMES = sorted(name for name in modules() if name)


# ---- arrows and doors -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULE_NAMES)
def test_imports_follow_the_arrows(name):
    room = room_of(name)
    others = own_imports_of(name) - set(EXCEPTIONS.get(name, ()))
    wrong = {other: room_of(other) for other in others if room_of(other) not in may_import(room)}
    assert not wrong, f"{name} (room {room!r}) may import from {sorted(may_import(room))} only, not {wrong}"


def test_every_arrow_on_the_list_is_drawn():
    listed = {(room_of(entry), other) for entry in ROOMS for other in ROOMS[entry]}
    unused = {(room, other) for room, other in listed - arrows() if room != other}
    assert not unused, f"on the list, and not in the source: {sorted(unused)}"


def test_the_arrows_have_no_circle():
    rooms = {room_of(entry) for entry in ROOMS}
    listed = {(room, other) for room in rooms for other in may_import(room) if room != other}
    rest = rooms - set().union(*in_floors(rooms, listed))
    assert not rest, f"a circle among {sorted(rest)}"


def test_the_files_have_no_circle():
    """Imports for type checkers count: whoever reads a file has to read what they name."""
    edges = {(name, other) for name in MODULE_NAMES for other in own_imports_of(name) if name != other}
    rest = set(MODULE_NAMES) - set().union(*in_floors(set(MODULE_NAMES), edges))
    # What only points into a circle is not in one.
    while ends := {name for name in rest if not any(a in rest and b == name for a, b in edges)}:
        rest -= ends
    assert not rest, f"a circle among {sorted(rest)}"


@pytest.mark.parametrize("name", MODULE_NAMES)
def test_private_names_stay_in_their_room(name):
    taken = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.ImportFrom) and f"{node.module}".startswith("uringblob.")
        for alias in node.names
        if alias.name.startswith("_")
        and room_of(f"{node.module}".removeprefix("uringblob.")) != room_of(name)
    ]
    assert not taken, f"{name} takes private names from another room: {taken}"


def test_public_modules_are_named():
    for name in PUBLIC_MODULES:
        assert hasattr(importlib.import_module(f"uringblob.{name}"), "__all__"), (
            f"uringblob.{name} has no __all__"
        )
    named = {
        name
        for name, module in modules().items()
        if any(
            isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0]) for node in module.body
        )
    }
    assert named <= PUBLIC_MODULES | {""}, f"{named - PUBLIC_MODULES}: private modules have no __all__"


def test_the_figures_of_the_house(record_testsuite_property):
    """They are printed, and only the circles and the arrows back are asserted, by the tests above."""
    rooms = {room_of(name) for name in MODULE_NAMES}
    functions = sorted(
        code_lines(node)
        for module in modules().values()
        for node in ast.walk(module)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    figures = {
        "lines": sum(lines.values()),
        "files": len(lines),
        "rooms": len(rooms),
        "floors": len(in_floors(rooms, arrows())),
        "arrows": len(arrows()),
        "longest file": max(lines.values()),
        "median function": functions[len(functions) // 2],
        "longest function": functions[-1],
    }
    for figure, value in figures.items():
        record_testsuite_property(f"house: {figure}", value)
    print(", ".join(f"{value} {figure}" for figure, value in figures.items()))


def test_only_the_door_opens_to_c():
    users = {name for name in modules() if any("_uringblob" in full for full in imports_of(name))}
    assert users == {"_native"}


def test_cffi_is_imported_where_the_list_says():
    users = {name for name in modules() if any("cffi" in full.split(".")[0] for full in imports_of(name))}
    assert users == CFFI_USERS


def test_an_import_loads_no_c_parser():
    """``cffi.FFI()`` loads one, which took 50 of the 400 ms of an import."""
    code = "import sys, uringblob; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "uringblob.store.async_store" in loaded
    assert not {"pycparser", "cffi"} & set(loaded)


def test_nothing_else_is_needed_at_run_time():
    allowed = set(sys.stdlib_module_names) | RUN_TIME_DEPENDENCIES | {"uringblob"}
    for name in modules():
        extra = EXTRAS.get(room_of(name), set()) if name else set()
        strange = (
            {full.split(".")[0] for full in imports_of(name)} - allowed - extra - typing_imports_of(name)
        )
        assert not strange, f"{name} imports {strange}"


# ---- public names ---------------------------------------------------------------------------


def test_public_names():
    assert set(uringblob.__all__) >= PUBLIC_NAMES
    missing = [name for name in uringblob.__all__ if not hasattr(uringblob, name)]
    assert not missing


@pytest.mark.parametrize("trait", ["BlobStore", "AsyncBlobStore"])
def test_the_traits_are_whole_and_need_five_methods(trait):
    cls = getattr(uringblob, trait)
    closing = "close" if trait == "BlobStore" else "aclose"
    assert {closing, *TRAIT_METHODS} <= set(dir(cls))
    abstract = {"read_blob", "write_blob", "delete_blob", "list_blobs", "flush"}
    assert cls.__abstractmethods__ == abstract


@pytest.mark.parametrize("store", ["FileBlobStore", "AsyncFileBlobStore"])
def test_options_of_open(store):
    parameters = inspect.signature(getattr(uringblob, store).open).parameters
    options = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert {name: options.get(name, "missing") for name in OPEN_OPTIONS} == OPEN_OPTIONS


def test_fields_of_stats():
    assert set(uringblob.StoreStats.__dataclass_fields__) >= STATS_FIELDS


# ---- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_says_what_it_is(name):
    assert ast.get_docstring(modules()[name]), f"{name or '__init__'} has no docstring"


def test_files_stay_small():
    limits = [(SOURCE, "*.py", FILE_LINES_MAX), (SOURCE, "*.[ch]", C_FILE_LINES_MAX)]
    limits += [(ROOT / "examples", "*.py", FILE_LINES_MAX), (ROOT / "tools", "*.py", FILE_LINES_MAX)]
    for folder, pattern, limit in limits:
        for path in folder.rglob(pattern):
            if path.name == "_uringblob.c":
                continue  # generated, not tracked
            lines = len(path.read_text("utf-8").splitlines())
            assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines: split it by ideas"


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The length of a function; its docstring is for another screen."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if is_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_functions_fit_on_a_screen():
    for name, module in modules().items():
        for node in ast.walk(module):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = code_lines(node)
                assert lines <= FUNCTION_LINES_MAX, f"{name}: {node.name} has {lines} lines"


# ---- documents and words --------------------------------------------------------------------

_CODE = re.compile(r"`([^`\s]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_PATH = re.compile(r"^[\w.-]+(/[\w.-]+)*/?$")
_SUFFIXES = {".py", ".md", ".c", ".h", ".toml", ".in", ".sh", ".yml", ".a"}
#: Named in documents, but not ours.
FOREIGN_PATHS = {"liburing.a", "Python.h", "liburing.h", "xxhash.h"}


def mentioned_paths(document: Path):
    text = document.read_text("utf-8")
    outside_blocks = "".join(text.split("```")[::2])
    yield from (link for link in _LINK.findall(outside_blocks) if "://" not in link)
    for word in _CODE.findall(outside_blocks):
        path_like = Path(word).suffix in _SUFFIXES or (word.endswith("/") and word.count("/") >= 1)
        if _PATH.match(word) and path_like and word not in FOREIGN_PATHS:
            yield word


@pytest.mark.parametrize(
    "document", sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]), ids=lambda path: path.name
)
def test_every_path_a_document_mentions_exists(document):
    places = [ROOT, document.parent, SOURCE, SOURCE / "_native"]
    for mentioned in mentioned_paths(document):
        found = any((place / mentioned).exists() for place in places)
        # A module's bare name is clear enough where there is only one of that name.
        found = found or ("/" not in mentioned and len(list(SOURCE.rglob(mentioned))) == 1)
        assert found, f"{document.name}: no {mentioned}"


#: Word and what to do instead.  Spelled in two parts, or this file would not pass.
FORBIDDEN = {
    "TO" + "DO": "do it, or write a ticket",
    "FIX" + "ME": "fix it, or write a ticket",
    "X" + "XX": "say it in a sentence",
    "/ho" + "me/": "no machine's own paths",
    "/ro" + "ot/": "no machine's own paths",
    "/wo" + "rk/": "no machine's own paths",
    "pypi" + ".org": "pip knows its registry",
    "files.python" + "hosted": "pip knows its registry",
}


def test_no_forbidden_words():
    for path in text_files():
        if path.name == "_uringblob.c":
            continue  # generated, not tracked
        text = path.read_text("utf-8", errors="replace")
        for word, instead in FORBIDDEN.items():
            assert word not in text, f"{path.relative_to(ROOT)}: {word!r}: {instead}"
