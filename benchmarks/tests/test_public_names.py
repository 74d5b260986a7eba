"""The benchmark measures what users can have: it uses public names of uringblob, and private attributes of its own objects only."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import uringblob_bench

pytestmark = pytest.mark.one_interpreter

SOURCE = Path(uringblob_bench.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
PUBLIC_MODULES = {
    "uringblob",
    *(f"uringblob.{name}" for name in ("ring", "testing", "errors", "metrics", "completion")),
    *(f"uringblob.{name}" for name in ("guid", "slab", "views", "checksums", "tuning", "remote", "tiered")),
}
#: A named tuple's methods are public.
NAMED_TUPLE = {"_replace", "_asdict", "_fields"}


def nodes_of(path):
    return ast.walk(ast.parse(path.read_text("utf-8")))


def imports_of_uringblob(path):
    """Yield (module, name) of what a file imports of uringblob; the name is '' for a whole module."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_it_imports_public_names_of_public_modules(path):
    for module, name in imports_of_uringblob(path):
        if module.split(".")[0] == "uringblob":
            assert module in PUBLIC_MODULES, f"{module} is private"
            if f"{module}.{name}" not in PUBLIC_MODULES:
                assert name in {"", *importlib.import_module(module).__all__}, f"{module}.{name} is private"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_it_takes_private_attributes_of_its_own_objects_only(path):
    taken = [
        ast.unparse(node)
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in NAMED_TUPLE
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    ]
    assert not taken
