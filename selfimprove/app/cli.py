"""The command line. Everything heavy is imported by the command that needs it: ``--help`` must be instant."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from selfimprove import __version__
from selfimprove.app.options import OPTIONS
from selfimprove.errors import ConfigError, Halted, Interrupted, LimitReached, SelfImproveError

DEBUG = "SELFIMPROVE_DEBUG"
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest: Hydra 1.3 does not work with 3.14
RUNNING = sys.version_info[:2]

_EPILOG = f"""RUN is a run folder, or its path below runs/; left out, where that is allowed, it is the latest run.

exit codes:
  0    done; a run that reached one of its limits ended as designed
  1    a negative verdict: audit found something, reproduce differs, a run failed, no run can start here,
       an attack escaped
  2    wrong usage, a machine that cannot contain a run, or a probe that proved nothing;
       one message says what to do
  3    a tripwire paused the run: look at it, then selfimprove approve and selfimprove resume;
       of a study: its minutes are up, the same command goes on
  4    the run was halted
  130  interrupted with Ctrl-C; the message says how to resume

signals of a run:
  SIGINT, SIGTERM   the first: finish the step, save, say how to resume; the second: stop at once
  SIGUSR1           halt, as selfimprove halt does

environment:
  {DEBUG}=1           show the traceback of every error
  SELFIMPROVE_STATE_DIR       keys and ledger anchors, outside every run folder
"""


_WRONG_VALUE = re.compile(r"argument (.+?): invalid (.+?) value: '(.*)'")
_TYPES = {"int": "a whole number"}


def _meant(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class _Parser(argparse.ArgumentParser):
    """One line for a wrong invocation, with the nearest valid word."""

    words: Sequence[str] = ()  # that are parsed

    def error(self, message: str) -> NoReturn:
        see = f"see {self.prog} --help"
        if "invalid choice" in message:
            wrong = message.split("'")[1]
            said = f"unknown command: got {wrong}; allowed: {', '.join(COMMANDS)}{_meant(wrong, COMMANDS)}; {see}"
        elif "unrecognized arguments" in message:
            wrong = next(iter(message.partition("unrecognized arguments: ")[2].split()), "an empty word")
            parser = next((parser for name, parser in self._commands().items() if name in self.words), self)
            flags = [option for action in parser._actions for option in action.option_strings]
            see = f"see {parser.prog} --help"
            said = f"read command line: got {wrong}; allowed: {', '.join(flags)}{_meant(wrong, flags)}; {see}"
        elif found := _WRONG_VALUE.search(message):
            said = f"read {found[1]}: got {found[3]}; allowed: {_TYPES.get(found[2], found[2])}; {see}"
        else:
            missing = message.rpartition("required: ")[2]
            said = f"read command line: got too few words; allowed: with what is required, {missing}; {see}"
            said = said if "required" in message else f"read command line: {message}; {see}"
        self.exit(2, f"{self.prog.split()[0]}: {said}\n")

    def _commands(self) -> Mapping[str, argparse.ArgumentParser]:
        found = (action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return next(found, {})


COMMANDS = {
    "demo": "a tour in two minutes: run, kill switch, resume, audit, tampering, report",
    "run": "run the loop (Hydra overrides: seed=3, experiment=tiny, ...)",
    "resume": "go on with a run that was interrupted, killed, halted or approved",
    "status": "where a run stands",
    "approve": "let a run that a tripwire paused go on; who, when and why is kept in its ledger",
    "halt": "kill switch: stop all training of a run now, keep what is finished",
    "audit": "prove that a run's ledger, budget and files are unchanged",
    "inspect": "what the probes and lenses read in each generation",
    "report": "write report.html again",
    "candidates": "write every candidate as a trial that optuna-dashboard opens",
    "sync": "send to W&B what a run has kept offline",
    "dashboard": "make a W&B workspace with this loop's charts, or print what it consists of",
    "compare": "several runs side by side: settings, skill, compute, hand-overs, audit; writes compare.html",
    "claim": "what a run claims, on which evidence, and what it owes; as files that rsi-audit checks",
    "reproduce": "train a kept generation again and compare the weights",
    "doctor": "what this machine can enforce, by which mechanism, and what to change for the rest",
    "redteam": "attack the containment in every known way, or with a file of one's own attacks",
    "benchmark": "run a benchmark by name",
    "study": "run a study by name",
}


_ELSEWHERE = {
    "demo": "demo",
    "candidates": "tried",
    "sync": "syncing",
    "dashboard": "dashboard",
    "compare": "comparing",
    "claim": "claim_command",
    "doctor": "doctor",
    "redteam": "redteam",
}
"""Modules of the commands that are not in ``commands``."""


def build_parser() -> _Parser:
    """The parser of everything but ``run``'s own arguments, which are Hydra's."""
    parser = _Parser(
        prog="selfimprove",
        description="A contained, inspectable toy loop of recursive self-improvement.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"selfimprove {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in COMMANDS.items():
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        for names, named in OPTIONS[name]:
            made.add_argument(*names, **named)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code, see the epilog of ``--help``."""
    code = 0
    try:
        try:
            code = _answer(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # here, and not as the interpreter ends, which would call it an error
    except BrokenPipeError:  # `selfimprove status | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except SystemExit as stop:
        if not isinstance(stop.__context__, BrokenPipeError):  # which rich turns into this
            raise
    return code


def _answer(words: list[str]) -> int:
    """Do what the words say; errors that a person can act on become one message and an exit code."""
    try:
        _check_python()
        return _dispatch(words)
    except KeyboardInterrupt:
        how = "selfimprove resume" if words[:1] in (["run"], ["resume"]) else "the same command"
        print(f"selfimprove: interrupted; go on with: {how}", file=sys.stderr)
        return 130
    except Interrupted as error:
        return _fail(error, 130)
    except Halted as error:
        return _fail(error, 4)
    except LimitReached as error:
        return _fail(error, 0)
    except SelfImproveError as error:
        return _fail(error, 2, "" if error.remedy else f"; see selfimprove {words[0] if words else ''} --help")


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["run"]:
        from selfimprove.app import launch

        if any(word in ("-h", "--help") for word in words[1:]):
            print(launch.help_text())
            return 0
        return launch.launch(words[1:])
    parser = build_parser()
    parser.words = words
    arguments = parser.parse_args(words)
    if arguments.command in ("benchmark", "study"):
        from selfimprove.app import studies

        registry = studies.STUDIES if arguments.command == "study" else studies.BENCHMARKS
        return studies.dispatch(arguments.command, registry, arguments.name, arguments.rest)
    if arguments.command is None:
        from selfimprove.app.next_steps import next_steps

        return next_steps()
    module = importlib.import_module(f"selfimprove.app.{_ELSEWHERE.get(arguments.command, 'commands')}")
    return int(getattr(module, arguments.command)(arguments))


def _check_python() -> None:
    if not PYTHONS[0] <= RUNNING <= PYTHONS[1]:
        here, *known = (".".join(map(str, version)) for version in (RUNNING, *PYTHONS))
        remedy = "make setup PYTHON=/path/to/such/a/python, or install into an environment of one"
        raise ConfigError("start selfimprove", f"Python {here}", f"Python {known[0]} to {known[1]}", remedy)


def _fail(error: SelfImproveError, code: int, more: str = "") -> int:
    if os.environ.get(DEBUG) == "1":
        raise error
    print(f"selfimprove: {error}{more}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
