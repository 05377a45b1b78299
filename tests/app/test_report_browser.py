"""The report in a real browser: the script runs, nothing is blocked, nothing is cut off or hidden by something else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.app import report_fixture as fixture
from tests.app.browser import CHROMIUM, browse

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the PATH")


# Lists every part that scrolls sideways, every text outside of its drawing, and every two texts that overlap.
PROBE = """<script>addEventListener("load", () => {
  const found = [], box = (element) => element.getBoundingClientRect();
  for (const area of document.querySelectorAll(".scroll, .multiples > div"))
    if (area.scrollWidth > area.clientWidth + 1) found.push(`scrolls: ${area.getAttribute("aria-label")}`);
  for (const drawing of document.querySelectorAll("svg")) {
    const outer = box(drawing);
    const texts = [...drawing.querySelectorAll("text")].map((text) => [text.textContent, box(text)]);
    texts.forEach(([words, one], index) => {
      if (one.left < outer.left - 1 || one.right > outer.right + 1 || one.top < outer.top - 1
          || one.bottom > outer.bottom + 1) found.push(`cut off: ${words}`);
      for (const [others, other] of texts.slice(index + 1)) {
        const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const height = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        if (width > 2 && height > 4) found.push(`overlap: ${words} and ${others}`);
      }
    });
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  document.body.innerText = ["checked", document.querySelectorAll("svg").length, ...found].join("; ");
});</script>"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the synthetic run, beside a baseline."""
    return fixture.write_page(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def opened(written: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The page after its script has run, with the browser's log."""
    return browse(f"{written.as_uri()}?theme=dark", tmp_path_factory.mktemp("profile"))


def test_at_1440_pixels_nothing_scrolls_sideways_is_cut_off_or_overlaps(written: Path, tmp_path: Path) -> None:
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", written.read_text(encoding="utf-8"))
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    shown = browse(probed.as_uri(), tmp_path / "profile", "--window-size=1440,1000").stdout
    found = re.search(r"<body>checked; (\d+)(.*)</body>", shown, flags=re.DOTALL)
    assert found is not None
    assert int(found[1]) > 15
    assert found[2].strip() == ""


def test_the_script_runs_under_the_content_policy(opened: subprocess.CompletedProcess[str]) -> None:
    assert "50 of 50 shown" in opened.stdout
    assert 'data-theme="dark"' in opened.stdout


def test_nothing_is_reported_on_the_console(opened: subprocess.CompletedProcess[str]) -> None:
    assert "CONSOLE" not in opened.stderr
    assert "Content Security Policy" not in opened.stderr


def test_hostile_ledger_text_stays_text_in_the_document(opened: subprocess.CompletedProcess[str]) -> None:
    assert opened.stdout.count("<script") == 1
