"""What the pages show is done: their files join a run, their Python is executed, their commands are valid."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, commands, files, name

OUTSIDE = ("docker", "jupyter", "wandb", "pipx", "pre-commit")  # programs that are not ours: named, not run
OURS = ("selfimprove", "make", "pip", "python")
NAMED = [(name(page), words) for page in PAGES for words in commands(page)]
OWN = (
    "tasks.modules",
    "tasks.families",
    "inspection.modules",
    "inspection.also",
    "controller.modules",
    "controller.name",
)


def joined() -> list[str]:
    """What the guides add to a run, all of it on one command line."""
    guides = {"docs/how-to/task.md", "docs/how-to/probe.md", "docs/how-to/proposer.md"}
    return [word for page, words in NAMED if page in guides for word in words if word.startswith(OWN)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the pages show, and one run that all of the guides joined."""
    folder = tmp_path_factory.mktemp("lab")
    for path, text in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "my_lab" / "__init__.py").touch()
    words = ["run", "experiment=tiny", "debug=micro", "generations=1", *joined()]
    done = python(folder, "-m", "selfimprove.app.cli", *words)
    assert done.returncode == 0, done.stderr
    return folder


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SELFIMPROVE_STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def problems(lab: Path) -> dict[str, list[str]]:
    """By page, what went wrong."""
    done = python(lab, str(Path(__file__).with_name("try_examples.py")))
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("page", [name(page) for page in PAGES])
def test_the_python_of_a_page_runs_and_its_commands_are_valid(page: str, problems: dict[str, list[str]]) -> None:
    assert not problems[page], "\n\n".join(problems[page])


class TestTheGuidesJoinARun:
    def records(self, lab: Path, kind: str) -> list[dict[str, object]]:
        lines = (lab / "runs" / "latest" / "ledger.jsonl").read_text().splitlines()
        return [entry["body"] for entry in map(json.loads, lines) if entry["kind"] == kind]

    def test_the_task_is_trained_and_scored(self, lab: Path) -> None:
        assert all(set(body["tasks"]) == {"recall", "majority"} for body in self.records(lab, "score"))

    def test_the_probe_reads_the_leader(self, lab: Path) -> None:
        inspection = self.records(lab, "inspection")[-1]
        assert inspection["instruments"]["evenness"]["verdict"] == "read"
        assert all(0 < share <= 1 for share in inspection["summary"]["evenness"].values())

    def test_the_proposer_proposes(self, lab: Path) -> None:
        edits = [edit for body in self.records(lab, "proposal") for edit in body["edits"]]
        assert edits
        assert all("recipe." in str(edit) for edit in edits)
        assert all(body["reason"] == "" for body in self.records(lab, "ask"))


@pytest.mark.parametrize(("page", "words"), NAMED, ids=lambda part: part if isinstance(part, str) else " ".join(part))
def test_a_command_names_only_what_there_is(page: str, words: list[str]) -> None:
    program, *rest = words
    assert program in (*OURS, *OUTSIDE), f"{page}: who is {program}?"
    if program == "make":
        for target in [word for word in rest if "=" not in word]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), f"{page}: {target}"
    if program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = [one for word in rest for group in re.findall(r"\[(.+)\]", word) for one in group.split(",")]
        assert set(asked) <= set(extras)
        assert all((ROOT / rest[at + 1]).is_file() for at, word in enumerate(rest) if word == "-c")
