"""The documentation keeps up with the code: errors, messages, events, public names, links to pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import uringblob
from uringblob import errors, logs

pytestmark = pytest.mark.one_interpreter

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "users" / "reference"
TROUBLE = (DOCS / "operators" / "troubleshooting.md").read_text("utf-8")
SOURCE = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
CODE_COLUMNS_MAX = 88
ERRORS = [name for name, value in vars(errors).items() if isinstance(value, type)]


@pytest.mark.parametrize("name", sorted(set(ERRORS) - {"BlobStoreError", "BlobGuid"}))
def test_every_error_has_its_place_in_troubleshooting(name):
    assert name in TROUBLE


def test_every_message_that_troubleshooting_quotes_is_one_that_the_code_has():
    # Adjacent literals and f-string holes: compare the words that stay.
    code = re.sub(r'"\s*\n?\s*f?"', "", SOURCE)
    code = re.sub(r"\{[^{}]*\}", "...", code)
    quoted = re.findall(r'^\| "([^"]+)"', TROUBLE, re.MULTILINE)
    quoted += [
        heading.partition(": ")[2]
        for heading in re.findall(r"^## (.*)$", TROUBLE, re.MULTILINE)
        if ": " in heading
    ]
    quoted += re.findall(r"^## ([a-z].*)$", TROUBLE, re.MULTILINE)
    assert len(quoted) > 8
    for message in quoted:
        for piece in message.split("..."):
            words = piece.strip(" ()")
            assert words in code, f"troubleshooting.md quotes {words!r}, which no message says"


def test_the_tables_of_log_records_are_those_of_the_code():
    page = (REFERENCE / "observing.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == {name: text.replace("``", "`") for name, text in {**logs.EVENTS, **logs.FIELDS}.items()}


@pytest.mark.parametrize("name", sorted(set(uringblob.__all__) - set(ERRORS) - {"PAGE_SIZE", "BUF_ALIGN"}))
def test_every_public_name_is_in_the_reference(name):
    pages = "".join(path.read_text("utf-8") for path in REFERENCE.glob("*.md"))
    assert re.search(rf"uringblob\.{name}$", pages, re.MULTILINE)


def test_the_design_page_has_every_room():
    page = (DOCS / "maintainers" / "design.md").read_text("utf-8")
    source = ROOT / "src" / "uringblob"
    folders = {path.parent.relative_to(source).as_posix() for path in source.rglob("*.py")} - {"."}
    assert not [folder for folder in sorted(folders) if f"`{folder}/`" not in page]


def test_every_page_that_the_code_names_exists():
    files = [
        path for folder in ("src", "tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    named = {
        page
        for path in [*files, ROOT / "Makefile", ROOT / "Dockerfile"]
        for page in re.findall(r"docs/[\w/]+\.md", path.read_text("utf-8"))
    }
    assert named
    assert not [page for page in sorted(named) if not (ROOT / page).exists()]


def test_every_picture_is_a_file_that_the_repositorys_markdown_shows():
    shown = {
        (page.parent / picture).resolve()
        for page in [ROOT / "README.md", *DOCS.rglob("*.md")]
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))
    }
    assert shown >= set((DOCS / "pictures").iterdir())
    assert all(picture.exists() for picture in shown)


def test_pictures_ask_nothing_of_the_network():
    for picture in DOCS.rglob("*.svg"):
        text = picture.read_text("utf-8").replace("http://www.w3.org/", "")
        assert "http" not in text, picture


def test_every_page_belongs_to_one_kind_of_reader():
    parts = {page.relative_to(DOCS).parts[0] for page in DOCS.rglob("*.md")}
    alone = {"index.md", "remote-format.md", "scale.md"}
    assert parts == {*alone, "users", "operators", "maintainers"}


def test_code_fits_the_page():
    """Furo shows 90 characters of code in a line; a longer one scrolls."""
    long = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in [ROOT / "README.md", *DOCS.rglob("*.md")]
        for block in re.findall(r"^```.*?\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if len(line) > CODE_COLUMNS_MAX
    ]
    assert not long


def test_the_front_page_links_every_page():
    """Its table of contents is hidden: these links serve readers of the Markdown in the repository."""
    links = re.findall(r"\]\(([^)]+\.md)\)", (DOCS / "index.md").read_text("utf-8"))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert pages == set(links), "link each page in docs/index.md, under its heading"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/users/quickstart.md",
        *(f"docs/users/howto/{n}.md" for n in ("service", "buffer_manager", "from_threads")),
    ],
)
def test_pages_say_that_read_blobs_returns_its_errors(page):
    text = (ROOT / page).read_text("utf-8")
    assert re.search(r"read_blobs.*?\breturn(s|ed)\b", text, re.DOTALL)


@pytest.mark.parametrize("page", ["docs/operators/containers.md", "docs/users/reference/cli.md"])
def test_pages_agree_on_how_many_frames_the_usual_limit_locks(page):
    """Seen as an ordinary user: three huge pages of 2 MiB, and the fourth does not fit beside the ring."""
    text = (ROOT / page).read_text("utf-8")
    assert re.search(r"\b12 (of 64 )?frames", text)
    assert "15 of 64 frames" not in text
