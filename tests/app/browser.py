"""A page in headless Chromium: as it is, or with scripts of a test added and what they found read back."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
)
PATIENCE = "--virtual-time-budget=120000"  # milliseconds of the page's own clock, for scripts that go on after loading
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def browse(address: str, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open an address; its document as it stands at the end is on standard output, the console on the other."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def examine(page: Path, folder: Path, script: str, *flags: str, library: str = "") -> Any:
    """What a script, the body of an async function, returns about a page once that has loaded.

    The page's content policy is left out, since it admits no script but its own.
    """
    source = _POLICY.sub("", page.read_text(encoding="utf-8"))
    (folder / "library.js").write_text(library, encoding="utf-8")
    shown = "Object.assign(document.createElement('pre'), {id: 'told', textContent: found})"
    probe = f"""<script src="library.js"></script><script>addEventListener("load", async () => {{
      let found;
      try {{ found = JSON.stringify(await (async () => {{ {script} }})()); }}
      catch (error) {{ found = JSON.stringify(String(error)); }}
      document.body.replaceChildren({shown});
    }});</script>"""
    copy = folder / "examined.html"
    copy.write_text(source.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    answer = browse(copy.as_uri(), folder / "profile", *flags).stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', answer, flags=re.DOTALL)
    assert found is not None, answer[-2000:]
    return json.loads(html.unescape(found[1]))


def axe() -> str | None:
    """The source of axe-core, which the package axe-core-python carries; None where it is not installed."""
    spec = find_spec("axe_core_python")
    if spec is None or not spec.submodule_search_locations:
        return None
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")
