"""README and docs name files, links, flags and functions that are there."""

import importlib
import re

import pytest

import pic_tf
from tests.docs.documents import PAGES, ROOT, headings, links, spans

_OF_OTHERS = {  # flags of pip, pytest, mkdocs, Slurm and the like
    *("strict", "check", "help", "ntasks-per-node", "nodes", "gpus-per-node"),
    *("device_gb", "host_gb", "disk_gb"),  # of tools/plan.py, whose names are put together
}


def each_page(function):
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)(function)


@each_page
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        # The site takes the pages that lie beside docs/ to it.
        if not target.exists() and page.parent.name == "docs":
            target = ROOT / path
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@each_page
def test_no_line_is_too_long_to_read(page):
    rows = [line for line in page.read_text().splitlines() if not line.startswith("|")]
    assert [line for line in rows if len(line) > 120] == []


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text) < 10_500 and max(map(len, text.splitlines())) <= 120


@each_page
def test_files_are_there(page):
    for span in spans(page):
        for path in re.findall(
            r"(?<![\w/.])(?:tools|configs|pic_tf|tests|docs|\.ci)/[\w./]*\w", span
        ):
            assert "NAME" in path or (ROOT / path).exists(), path
        if re.fullmatch(r"\w+\.flags", span):
            assert (ROOT / "configs" / span).exists(), span
        if re.fullmatch(r"(?!tests/)[\w/]*test_\w+\.py", span):
            assert any((ROOT / "tests").rglob(span)), span


@each_page
def test_flags_are_there(page):
    known = _flags() | _OF_OTHERS
    for name in re.findall(r"(?<![\w-])--([a-z][a-z_\-]*)", page.read_text()):
        assert name in known, name


@each_page
def test_functions_are_there(page):
    for span in spans(page):
        for name in re.findall(r"(?<![\w./])pic_tf(?:\.\w+)+", span):
            assert "NAME" in name or _find(name)


def test_the_map_has_every_folder_and_the_contract():
    text = (ROOT / "docs/architecture.md").read_text()
    for file in (ROOT / "pic_tf").rglob("*/__init__.py"):
        assert f"| `{file.parent.relative_to(ROOT)}/` |" in text, file.parent
    contract = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[\n(.*?)^\]", contract, re.DOTALL | re.MULTILINE)[1]
    assert "".join(f"{layer}\n" for layer in re.findall(r'"(.*)"', layers)) in text


def _flags() -> set[str]:
    """Every flag of pic_tf and its tools, by how they are declared."""
    declared = (
        r"""DEFINE_\w+\(\s*["'](\w+)|^    (\w+): .*= setting\(|add_argument\(\s*["']--(\w+)"""
    )
    files = [*(ROOT / "pic_tf").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    found = (re.findall(declared, file.read_text(), re.MULTILINE) for file in files)
    return {name for names in found for groups in names for name in groups if name} | {"flagfile"}


def _find(name: str) -> bool:
    """Import the longest part of a dotted name that is a module, and look the rest up."""
    parts, rest = name.split("."), []
    if len(parts) == 2 and parts[1] in pic_tf.__all__:  # a function of a command's name too
        return getattr(pic_tf, parts[1])
    while True:
        try:
            thing = importlib.import_module(".".join(parts))
            break
        except ModuleNotFoundError:
            rest.insert(0, parts.pop())
    for part in rest:
        thing = getattr(thing, part)
    return True
