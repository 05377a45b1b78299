"""The documentation builds without a warning, and is read without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import pytest

from tests.docs.pages import ROOT

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src"}
LINKED = ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors: not with ``--quiet``, which hides them from ``--strict``, too."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Fetched(HTMLParser):
    """Whatever a browser loads by itself to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in FETCHED:
            self.found += filter(None, [given.get(FETCHED[tag])])
        if tag == "link" and set((given.get("rel") or "").split()) & set(LINKED):
            self.found += filter(None, [given.get("href")])


class TestTheSite:
    pages: ClassVar[list[str]] = ["index", "concepts", "measurement", "how-to/task", "reference/genome", "NOTES"]

    def test_no_page_loads_anything_from_the_network(self, site: Path) -> None:
        pages = list(site.rglob("*.html"))
        assert len(pages) > 15
        for page in pages:
            seen = Fetched()
            seen.feed(page.read_text(encoding="utf-8"))
            assert seen.found, page
            for address in seen.found:
                assert not re.match(r"(https?:)?//", address), f"{page}: {address}"
                if not address.startswith(("data:", "#")) and page.name != "404.html":
                    assert (page.parent / address).resolve().is_file(), f"{page}: {address}"

    def test_no_style_sheet_does(self, site: Path) -> None:
        for sheet in site.rglob("*.css"):
            assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet

    def test_no_page_has_a_diagram_that_only_a_script_from_elsewhere_could_draw(self, site: Path) -> None:
        for page in site.rglob("*.html"):
            assert 'class="mermaid"' not in page.read_text(encoding="utf-8"), page

    @pytest.mark.parametrize("page", pages)
    def test_a_page_is_there(self, site: Path, page: str) -> None:
        assert (site / f"{page}.html").stat().st_size > 10_000

    def test_the_reference_has_the_docstrings(self, site: Path) -> None:
        text = (site / "reference" / "genome.html").read_text(encoding="utf-8")
        assert "One model, completely described." in text
        assert 'id="selfimprove.genome.genome.Genome.sha256"' in text
