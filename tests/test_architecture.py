"""The source obeys its own design: arrows, doors, names, sizes, and the paths documents mention.

``docs/design.md`` shows the rooms.  A new module goes into a room here and there.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import uringblob

pytestmark = pytest.mark.one_interpreter

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "uringblob"

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
C_FILE_LINES_MAX = 600


class Room(NamedTuple):
    """Modules (or a package, with a closing dot), and the rooms they may import from."""

    modules: tuple[str, ...]
    may_import: tuple[str, ...]


#: The arrows.  A room may always import from itself; lower rooms never see higher ones.
ROOMS = {
    "ground": Room(
        (
            *("units", "guid", "errors", "logs", "checksums", "completion", "frames", "stats", "report"),
            *("copy_on_write", "streams", "start", "failures", "owner", "limits"),
        ),
        (),
    ),
    "frames": Room(("slab", "buffers", "pool"), ("ground",)),
    "native": Room(("_native.",), ()),
    "ring": Room(("ring.",), ("ground", "frames", "native")),
    "engine protocol": Room(("engines.base", "engines.request"), ("ground", "frames")),
    "engines": Room(("engines.",), ("ground", "frames", "engine protocol", "ring", "native")),
    "transfers": Room(("transfers",), ("ground", "frames", "engine protocol")),
    "traits": Room(
        ("api", "async_api", "sync_api", "async_view", "defaults", "inline", "observing", "views"),
        ("ground", "frames"),
    ),
    "metrics": Room(("metrics",), ("ground",)),
    "memory stores": Room(("memory",), ("ground", "traits")),
    "pure core": Room(
        tuple(f"store.{name}" for name in ("changes", "format", "free_index", "manifest", "shards", "slots")),
        ("ground",),
    ),
    "core": Room(
        ("store.",), ("ground", "frames", "engine protocol", "engines", "transfers", "traits", "pure core")
    ),
    "facade": Room(("facade", "pilot", "call", "completion_loop"), ("ground", "frames", "traits", "core")),
    # The crash tests' disk puts a store on an engine of its own: it must know how one is opened.
    "simulation": Room(
        (
            "testing.history",
            "testing.sim_disk",
            "testing.sim_engine",
            "testing.sim_image",
            "testing.sim_loop",
            "testing.sim_store",
        ),
        ("ground", "frames", "engine protocol", "traits", "pure core", "core"),
    ),
    "testing": Room(("testing.",), ("ground", "frames", "traits", "engine protocol", "simulation")),
    # Looks at everything below it, to say what works and why not more.
    "doctor": Room(("doctor.",), ("ground", "frames", "native", "ring", "engines", "facade")),
    # Measures the store from outside; nothing of the library knows it.
    "cli": Room(("cli.", "__main__"), ("ground", "facade", "bench", "doctor")),
    "bench": Room(("bench.",), ("ground", "frames", "ring", "traits", "core", "facade", "pure core")),
}

#: Arrows against the table, one by one, with the reason.
EXCEPTIONS = {
    "store.creation": {"_native": "a rename that replaces nothing: the os module has none"},
}

#: The generic FFI (addresses of memory, no C of ours) is used here and nowhere else.
CFFI_USERS = {
    "slab": "hands out memory that Python's buffer protocol keeps alive",
    "buffers": "asks any buffer for its address",
    "ring.ops": "asks any buffer for its address",
}
#: Beside the standard library; everything else would be a new run-time dependency.
RUN_TIME_DEPENDENCIES = {"cffi", "xxhash"}
#: What a room may use besides: the extra that bears its name.
EXTRAS = {
    "cli": {"rich"},
    "bench": {"aiofiles", "caio", "lmdb", "matplotlib", "obstore", "rich", "rocksdict", "uvloop"},
    "metrics": {"prometheus_client"},
}
#: The core asks for an engine and opens files; it knows no engine by name.
ENGINE_DOORS = {
    "engines.aside",
    "engines.base",
    "engines.request",
    "engines.select",
    "engines.direct",
    "engines.refusal",
    "engines.posix_calls",  # how a file grows, before there is an engine
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
    write_blobs write_blobs_with_data_sync needs_flush has_blob read_blobs read_blob_range commit
    verify stats page_size
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
    """The room whose entry matches most exactly: 'engines.base' before 'engines.'."""
    matches = [
        (len(entry), room)
        for room, (entries, _may) in ROOMS.items()
        for entry in entries
        if name == entry or (entry.endswith(".") and f"{name}.".startswith(entry))
    ]
    assert matches, (
        f"src/uringblob/{name.replace('.', '/')}.py is in no room: add it to docs/design.md and here"
    )
    return max(matches)[1]


def text_files() -> list[Path]:
    """Every file that people read."""
    folders = ["src", "tests", "examples", "docs", "tools", ".ci"]
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
    allowed = {room, *ROOMS[room].may_import}
    others = own_imports_of(name) - set(EXCEPTIONS.get(name, ()))
    wrong = {other: room_of(other) for other in others if room_of(other) not in allowed}
    assert not wrong, f"{name} (room {room!r}) may import from {sorted(allowed)} only, not {wrong}"


def test_the_arrows_have_no_cycle():
    done: list[str] = []
    while len(done) < len(ROOMS):
        free = [room for room in ROOMS if room not in done and set(ROOMS[room].may_import) <= set(done)]
        assert free, f"a cycle among {set(ROOMS) - set(done)}"
        done += free


def test_only_the_door_opens_to_c():
    users = {name for name in modules() if any("_uringblob" in full for full in imports_of(name))}
    assert users == {"_native"}


def test_cffi_is_imported_where_the_list_says():
    users = {name for name in modules() if any(full.split(".")[0] == "cffi" for full in imports_of(name))}
    assert users <= set(CFFI_USERS), f"{users - set(CFFI_USERS)}: go through uringblob._native"


def test_the_core_knows_no_engine_by_name():
    for name in MODULE_NAMES:
        if room_of(name) in {"core", "pure core"}:
            engines = {other for other in own_imports_of(name) if other.startswith("engines")}
            assert engines <= ENGINE_DOORS, f"{name} imports {engines - ENGINE_DOORS}"


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
FOREIGN_PATHS = {"liburing.a", "Python.h", "liburing.h"}


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
