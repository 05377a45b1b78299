"""The pages of the documentation as tests read them: fenced examples, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LAB_BOOK = DOCS / "NOTES.md"  # what was tried, in the words of its day
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(set(DOCS.rglob("*.md")) - {LAB_BOOK}))
_FENCE = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
_SPAN = re.compile(r"`((?:selfimprove|make) [a-z][^`]*)`")
_PLACEHOLDERS = {
    "RUN": "runs/some",
    "OTHER": "runs/other",
    "GEN": "1",
    "NAME": "network",
    "FOLDER": "card",
    "FILE.py": "attacks.py",
}


@dataclass(frozen=True)
class Example:
    """One fenced block. With a title it is a file of that name."""

    page: str
    language: str
    title: str | None
    text: str


def name(page: Path) -> str:
    """Path of a page below the repository."""
    return page.relative_to(ROOT).as_posix()


def examples(page: Path) -> list[Example]:
    """The fenced blocks of a page, in order."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Example(name(page), m["language"], m["title"], m["text"]) for m in found]


def files(pages: tuple[Path, ...] = PAGES) -> dict[str, str]:
    """Text of every file that the pages show, by its name."""
    return {one.title: one.text for page in pages for one in examples(page) if one.title}


def code(page: Path) -> str:
    """The Python of a page that is no file, as one script."""
    return "\n".join(one.text for one in examples(page) if one.language == "python" and not one.title)


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page: of its blocks, and in the running text where it is one of ours."""
    blocks = [one.text for one in examples(page) if one.language in ("", "bash")]
    lines = [line for block in blocks for line in block.splitlines()]
    spans = [span for span in _SPAN.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))) if "..." not in span]
    found = [shlex.split(line, comments=True) for line in (*lines, *spans)]
    return [[_PLACEHOLDERS.get(word, word) for word in words] for words in found if words]
