"""``selfimprove demo``: a guided tour of run, halt, resume, audit, tampering and report, with the real commands."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich import get_console
from rich.text import Text

from selfimprove.app import folder
from selfimprove.app.overrides import placed
from selfimprove.app.signals import EXIT_HALTED
from selfimprove.archive.records import LEDGER_NAME
from selfimprove.errors import Interrupted, RunError

SMALL = ("experiment=tiny", "generations=3", "tracking=none")
COMMAND = (sys.executable, "-m", "selfimprove.app.cli")
POLL_SECONDS = 0.1
_END_OF_GENERATION = b'"kind":"generation"'
_SKILL = re.compile(rb'("best_skill":)(-?[0-9.e-]+)')


def demo(arguments: argparse.Namespace) -> int:
    """Take the tour; returns 0, or the exit code of the first command that did not do what the tour shows.

    Raises:
        RunError: the folder is taken, or the one beside it for the copy to tamper with.
        Interrupted: a person pressed Ctrl-C; what ran has saved what it had.
    """
    place = Path(arguments.folder or folder.RUNS / "demo" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    copy = place.with_name(f"{place.name}-tampered") if place.name else place
    for needed in (place, copy):
        if os.path.lexists(needed):
            raise _taken(needed)
    try:
        return Tour(place, copy, tuple(arguments.overrides) or SMALL).take()
    except KeyboardInterrupt as error:
        remedy = f"go on with: {folder.command('resume', place)}" if folder.is_run(place) else "nothing was left behind"
        raise Interrupted("demo: interrupted", remedy=remedy) from error


class Tour:
    """The steps, each a command that is printed as a person would type it, run, and explained.

    Args:
        place: the run folder to make.
        copy: where a copy of it stands for as long as it is tampered with.
        overrides: Hydra's, of the run.
    """

    def __init__(self, place: Path, copy: Path, overrides: Sequence[str]) -> None:
        self._place = place
        self._copy = copy
        self._overrides = overrides

    def take(self) -> int:
        """Take every step; stops at the first that goes wrong, and returns its exit code."""
        self._say("1. Run, and the kill switch", _RUN)
        code = self._run_and_halt()
        if code not in (0, EXIT_HALTED):
            return code
        self._say("2. Where it stands", _STATUS)
        self._do("status", str(self._place))
        if code == EXIT_HALTED:
            self._say("3. Go on", _RESUME)
            if code := self._do("resume", str(self._place), "--clear-halt"):
                return code
        self._say("4. Prove that nothing was changed", _AUDIT)
        if code := self._do("audit", str(self._place)):
            return code
        self._say("5. Tamper with a copy", _TAMPER)
        with _made(self._copy):
            line, before = tamper(self._place, self._copy)
            self._print(f"In {self._copy / LEDGER_NAME}, line {line}: the best skill {before} is now 0.999.\n")
            if (code := self._do("audit", str(self._copy))) != 1:
                return code or 1
        self._say("6. Read the report", _REPORT)
        if code := self._do("report", str(self._place)):
            return code
        self._say("Done", _END.format(place=shlex.quote(str(self._place))))
        return 0

    def _run_and_halt(self) -> int:
        """Start a run, throw the kill switch when its first generation is done; the run's exit code."""
        words = ("run", *self._overrides, placed(self._place))
        process = self._start(*words)
        try:
            while process.poll() is None and not self._has_generation():
                time.sleep(POLL_SECONDS)
            if process.poll() is None:
                begun = time.monotonic()
                self._do("halt", str(self._place), "--reason", "the demo shows the kill switch")
                code = process.wait()
                self._print(
                    f"The run ended {time.monotonic() - begun:.1f} s after the command was given, with code {code}."
                )
            return process.wait()
        except BaseException:
            process.wait()  # Ctrl-C has reached it, too: it saves what it has
            raise

    def _has_generation(self) -> bool:
        try:
            return _END_OF_GENERATION in (self._place / LEDGER_NAME).read_bytes()
        except OSError:
            return False

    def _do(self, *words: str) -> int:
        return self._start(*words).wait()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        typed = shlex.join(words)
        self._print(f"$ selfimprove {typed}", "bold")
        sys.stdout.flush()
        return subprocess.Popen([*COMMAND, *words])

    def _say(self, title: str, words: str) -> None:
        console = get_console()
        console.print()
        console.rule(Text(title, style="bold"), align="left")
        console.print(Text(words), soft_wrap=not console.is_terminal)
        console.print()

    def _print(self, words: str, style: str = "") -> None:
        get_console().print(Text(words, style=style), soft_wrap=True)


@contextmanager
def _made(place: Path) -> Iterator[None]:
    """A folder that is there for a while; nothing that somebody else put there is ever removed.

    Raises:
        RunError: something is there already, or it cannot be made.
    """
    try:
        place.mkdir()
    except FileExistsError as error:
        raise _taken(place) from error
    except OSError as error:
        raise folder.explain(error, f"make {place}") from error
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _taken(place: Path) -> RunError:
    limit, remedy = "a folder that does not exist yet", "choose another one with --folder"
    return RunError("demo in", str(place), limit, remedy)


def tamper(run_dir: Path, copy: Path) -> tuple[int, str]:
    """Copy a run and make its last generation look better; returns the line that was changed and what stood there.

    Raises:
        RunError: no generation has ended in this run.
    """
    shutil.copytree(run_dir, copy, dirs_exist_ok=True)
    ledger = copy / LEDGER_NAME
    lines = ledger.read_bytes().split(b"\n")
    ended = [number for number, line in enumerate(lines) if _END_OF_GENERATION in line and _SKILL.search(line)]
    if not ended:
        raise RunError("tamper with", str(copy), "a run with a finished generation", "take the demo again")
    found = _SKILL.search(lines[ended[-1]])
    assert found is not None  # it was searched for above
    lines[ended[-1]] = _SKILL.sub(rb"\g<1>0.999", lines[ended[-1]])
    ledger.write_bytes(b"\n".join(lines))
    return ended[-1] + 1, found[2].decode()


_RUN = """\
A controller proposes edits to a small transformer: to its architecture, its loss and its recipe. Each candidate is
priced first, gets a signed permit for exactly that price, and trains in a sandbox without network, without files to
write and without the right to start anything. Another process scores it, and its hidden states are read. When the
first generation is done, this tour throws the kill switch from outside: every worker is killed, and what was finished
is kept."""
_STATUS = """\
Everything that was decided or charged is a signed line of the ledger, ledger.jsonl in the run folder. The status is
read from nothing else."""
_RESUME = """\
A halted run goes on only when a person lifts the halt, and the ledger says so. The lineage is the one that the
uninterrupted run would have had: seeds and decisions come from the ledger, not from the clock."""
_AUDIT = """\
The audit proves the chain of hashes, the signatures, the sums of the budget and the hash of every stored file. The
head of the chain is also kept outside the run folder, so that a ledger that was cut off is found, too."""
_TAMPER = """\
Somebody wants a better result, and changes a number in the ledger. The audit of that copy must find it; the run
itself stays as it is."""
_REPORT = """\
One page that needs no network: the lineage with the edit on every edge, skill against charged compute, the gate, what
was read inside the models, the budget, and what the run may claim."""
_END = """\
The run and its report are in {place}; the changed copy is removed.
So small a run proves nothing about self-improvement: it shows the machinery.

  selfimprove run                       the default experiment, a few minutes on two cores
  selfimprove run experiment=adversary  what containment does with a hostile controller
  selfimprove doctor                    what this machine can enforce

When you have seen enough: rm -r {place}"""
