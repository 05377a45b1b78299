"""Every command that the pages show, as a new user would run it on a clone: ``make test-docs``.

In the order of the pages, each once, in an environment of the clone's own. ``SHORTER`` says what is added to studies of
hours, ``ELSEWHERE`` what is done by another test or cannot be done here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.app.wandb_server import KEY, serving
from tests.docs.pages import PAGES, ROOT, commands, files, name

ASKED = os.environ.get("SELFIMPROVE_TEST_DOCS") == "1"
pytestmark = [
    pytest.mark.docs,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not ASKED, reason="every command of the pages is run by make test-docs alone"),
]
ELSEWHERE = {
    "make test-cluster": "a test itself",
    "make test-wheel": "a test itself",
    "make test-docs": "this one",
    "pip install -c constraints.txt dist/": "make test-wheel does it, in an empty environment",
    "selfimprove run experiment=quick executor=": "on a real Slurm and Ray by make test-cluster",
    "docker": "no Docker here; the page says that it is untried",
    "wandb login": "asks for a key of W&B's own server",
    "jupyter lab": "the notebooks are executed in tests/interp",
}
SHORTER = {
    "make test": "ARGS=-k canonical",
    "make check": "ARGS=-k canonical",
    "make study-space": "ARGS=--genomes 5 --results short",
    "make study-recursion": "ARGS=--seeds 0 --minutes 0 --results short --runs short",
    "make study-search": "ARGS=--seeds 0 --minutes 0 --results short --runs short",
    "make study-calibration": "ARGS=--minutes 0 --results short",
    "selfimprove study faults": "--minutes 0 --results short",
    "selfimprove benchmark ladder": "--seeds 2 --minutes 0 --results short",
    "selfimprove benchmark planted": "--results short",
    "selfimprove benchmark containment": "--pairs 2 --starts 2 --kills 2 --silences 2 --results short",
}
TIME_UP = {"selfimprove": 3, "make": 2}  # exit codes where a study goes on another time
SHOWN: dict[tuple[str, ...], str] = {}
for _page in PAGES:
    for _words in commands(_page):
        SHOWN.setdefault(tuple(_words), name(_page))
SMALL = ("experiment=tiny", "debug=micro", "tracking=none")


@dataclass(frozen=True)
class User:
    """Somebody with a clone and an account of W&B."""

    clone: Path
    server: str

    def environment(self) -> dict[str, str]:
        hidden = ("PYTHON", "PYTEST_", "VIRTUAL_ENV", "SELFIMPROVE_", "MAKE", "MFLAGS", "ARGS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        return kept | {
            "PATH": f"{self.clone}/.venv/bin:{os.environ['PATH']}",
            "SELFIMPROVE_STATE_DIR": str(self.clone.parent / "state"),
            "WANDB_BASE_URL": self.server,
            "WANDB_API_KEY": KEY,
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, cwd=self.clone, env=self.environment(), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, *words: str, expect: tuple[int, ...] = (0,)) -> str:
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=1100)
        finally:
            if process.poll() is None:  # with what make has started
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode in expect, output[-6000:]
        return output

    def run_in_background(self) -> subprocess.Popen[str]:
        """A run that has begun to train."""
        folder = Path("runs", f"begun{len(list(self.clone.glob('runs/begun*')))}")
        process = self.start("selfimprove", "run", *SMALL, "generations=2", f"hydra.run.dir={folder}")
        ledger, deadline = self.clone / folder / "ledger.jsonl", time.monotonic() + 120
        while not (ledger.exists() and '"kind":"charge"' in ledger.read_text()):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "it does not begin"
            time.sleep(0.1)
        return process


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """With the runs that the pages speak of."""
    clone = tmp_path_factory.mktemp("user") / "selfimprove"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    for path, text in files().items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_text(text)
    (clone / "my_lab" / "__init__.py").touch()
    with serving() as server:
        somebody = User(clone, server.url)
        somebody.type("make", "setup")
        for folder, more in (("some", "seed=1"), ("other", "seed=2"), ("quick/RANDOM", "controller=random")):
            somebody.type("selfimprove", "run", *SMALL, more, f"hydra.run.dir=runs/{folder}")
        yield somebody


@pytest.mark.parametrize("words", [pytest.param(one, id=f"{SHOWN[one]}: {' '.join(one)}") for one in SHOWN])
def test_it_does_what_is_said(words: tuple[str, ...], user: User) -> None:
    line = " ".join(words)
    for start, why in ELSEWHERE.items():
        if line.startswith(start):
            pytest.skip(why)
    added = SHORTER.get(line, "")
    words += (added,) if words[0] == "make" and added else tuple(added.split())
    expect = (0, TIME_UP[words[0]]) if "--minutes" in added else (0,)
    match line.split():
        case ["selfimprove", "halt", *_]:
            running = user.run_in_background()
            user.type(*words)
            said, _ = running.communicate(timeout=120)
            assert state(user) == "halted", said
        case ["selfimprove", "resume", *rest]:
            if "--clear-halt" not in rest:  # nobody halted it: it was killed
                running = user.run_in_background()
                running.kill()
                running.communicate(timeout=60)
            user.type(*words)
            assert state(user) == "finished"
        case ["selfimprove", "approve", *_]:
            user.type("selfimprove", "run", *SMALL, "generations=2", "containment.tripwires.entropy=20", expect=(3,))
            user.type(*words)
        case _:
            user.type(*words, expect=expect)


def state(user: User) -> str:
    """Of the latest run."""
    return str(json.loads(user.type("selfimprove", "status", "--json"))["state"])
