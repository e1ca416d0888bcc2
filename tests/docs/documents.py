"""Read README, CONTRIBUTING and docs: commands, snippets, links, and words in code spans."""

import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LOOP = re.compile(r"^for (\w+) in (.*?); do\n(.*?)^done$", re.DOTALL | re.MULTILINE)


def fences(page: pathlib.Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for kind, text in _FENCE.findall(page.read_text()) if kind == language]


def spans(page: pathlib.Path) -> list[str]:
    """The code spans in running text; a line break in one is a space."""
    return [
        " ".join(span.split())
        for span in re.findall(r"`([^`]+)`", _FENCE.sub("", page.read_text()))
    ]


def commands(page: pathlib.Path) -> list[str]:
    """The shell commands in blocks and spans, each in one line, loops unrolled, in the order of
    the page.
    """
    lines = []
    for block in fences(page, "sh"):
        block = _LOOP.sub(_unrolled, block.replace("\\\n", " "))
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                cut = words.index("&&")
                lines.append(words[:cut])
                words = words[cut + 1 :]
            lines.append(words)
    lines += [shlex.split(span) for span in spans(page) if re.match(r"python (-m|tools/)", span)]
    return [shlex.join(line) for line in lines if line]


def headings(page: pathlib.Path) -> set[str]:
    """The anchors of a page, as GitHub and the site name them."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: pathlib.Path) -> list[str]:
    """The targets of links and pictures that lead to files."""
    targets = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text()))
    return [target for target in targets if not target.startswith("https://")]


def _unrolled(loop: re.Match) -> str:
    name, values, body = loop.groups()
    return "".join(body.replace(f"${name}", value) for value in values.split())
