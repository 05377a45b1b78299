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
from selfimprove.errors import ConfigError, Halted, Interrupted, LimitReached, SelfImproveError

DEBUG = "SELFIMPROVE_DEBUG"
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest: Hydra 1.3 does not work with 3.14
RUNNING = sys.version_info[:2]

_EPILOG = f"""RUN is a run folder, or its path below runs/; left out, it is the latest run.

exit codes:
  0    done; a run that reached one of its limits ended as designed
  1    a negative verdict: audit found something, reproduce differs, a run failed, no run can start here,
       an attack escaped
  2    wrong usage, or a machine that cannot contain a run; one message says what to do
  3    a tripwire paused the run: look at it, then selfimprove approve and selfimprove resume
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
            wrong = message.rpartition(": ")[2].split()[0]
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
    "reproduce": "train a promoted generation again and compare the weights",
    "doctor": "what this machine can enforce, by which mechanism, and what to change for the rest",
    "redteam": "attack the containment in every known way, or with a file of one's own attacks",
    "benchmark": "run a benchmark by name",
    "study": "run a study by name",
}


SAY_JSON = ("status", "audit", "inspect", "report", "candidates", "compare", "claim", "reproduce", "doctor", "redteam")


def _seconds(given: str) -> float:
    """A time that a person has typed."""
    if not 0 < (seconds := float(given)) < 1e6:
        raise ValueError
    return seconds


_seconds.__name__ = "number of seconds above 0"  # how argparse calls it in its message


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
    made = {}
    for name, text in COMMANDS.items():
        made[name] = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in ("benchmark", "study"):
            made[name].add_argument("name", nargs="?", metavar="NAME", help=f"left out: list the known {name} names")
            made[name].add_argument("rest", nargs=argparse.REMAINDER, help="arguments of its own")
        elif name == "approve":  # never by default: who approves says what
            made[name].add_argument("run", metavar="RUN", help="run folder")
            made[name].add_argument("--reason", required=True, help="why it may go on; kept in the ledger")
        elif name == "demo":
            made[name].add_argument(
                "overrides", nargs="*", metavar="KEY=VALUE", help="of its run, in place of a tiny one: debug=micro"
            )
            made[name].add_argument("--folder", metavar="FOLDER", help="the run folder (default: runs/demo/<time>)")
        elif name == "compare":
            made[name].add_argument("runs", nargs="+", metavar="RUN", help="two or more run folders")
            made[name].add_argument(
                "--output", default="compare.html", metavar="FILE", help="where the page goes (default: %(default)s)"
            )
        elif name not in ("run", "doctor", "redteam"):
            made[name].add_argument("run", nargs="?", metavar="RUN", help="run folder (default: the latest run)")
    for name in SAY_JSON:
        made[name].add_argument("--json", action="store_true", help="print JSON with stable keys")
    made["sync"].add_argument(
        "--seconds", type=_seconds, default=600.0, metavar="S", help="give up after so long (default: %(default)g)"
    )
    made["sync"].add_argument(
        "--rebuild", action="store_true", help="draw the run again from its ledger first, whatever W&B has kept of it"
    )
    made["dashboard"].add_argument("--json", action="store_true", help="print the workspace; nothing is sent")
    for name in ("project", "entity"):
        made["dashboard"].add_argument(f"--{name}", metavar="NAME", help="default: the run's tracking." + name)
    made["resume"].add_argument(
        "--json", action="store_true", help="show progress as JSON lines, as progress=json does"
    )
    made["resume"].add_argument("--clear-halt", action="store_true", help="lift a halt; the ledger records it")
    made["halt"].add_argument("--reason", default="halted by a person", help="kept in the ledger")
    made["inspect"].add_argument("gen", nargs="?", type=int, metavar="GEN", help="only this generation")
    made["inspect"].add_argument("--generation", type=int, metavar="N", help="the same, of the latest run")
    made["inspect"].add_argument(
        "--full", action="store_true", help="inspect it again, with every instrument; up to a minute"
    )
    made["report"].add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="OTHER",
        help="another run to stand beside it; may be repeated",
    )
    made["claim"].add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="OTHER",
        help="a run of another arm or root seed that claims about the controller rest on; may be repeated",
    )
    made["claim"].add_argument(
        "--export", metavar="FOLDER", help="write the files that rsi-audit reads, and its commands"
    )
    made["redteam"].add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a category, or category/name; may be repeated"
    )
    made["redteam"].add_argument("--probe", metavar="FILE.py", help="call every attack_*() of this file in a worker")
    made["redteam"].add_argument("--backend", metavar="NAME", help="lockdown (the default), or none: all should escape")
    made["reproduce"].add_argument("--generation", type=int, metavar="N", required=True, help="a promoted generation")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code, see the epilog of ``--help``."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _check_python()
        return _dispatch(words)
    except KeyboardInterrupt:
        print("selfimprove: interrupted; go on with: selfimprove resume", file=sys.stderr)
        return 130
    except Interrupted as error:
        return _fail(error, 130)
    except Halted as error:
        return _fail(error, 4)
    except LimitReached as error:
        return _fail(error, 0)
    except SelfImproveError as error:
        return _fail(error, 2, "" if error.remedy else f"; see selfimprove {words[0] if words else ''} --help")
    except BrokenPipeError:  # `selfimprove status | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


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
    if arguments.command == "demo":
        from selfimprove.app.demo import demo

        return demo(arguments)
    if arguments.command == "doctor":
        from selfimprove.app.doctor import doctor

        return doctor(arguments)
    if arguments.command == "claim":
        from selfimprove.app.claim_command import claim

        return claim(arguments)
    if arguments.command == "candidates":
        from selfimprove.app.tried import candidates

        return candidates(arguments)
    if arguments.command == "sync":
        from selfimprove.app.syncing import sync

        return sync(arguments)
    if arguments.command == "dashboard":
        from selfimprove.app.dashboard import dashboard

        return dashboard(arguments)
    if arguments.command == "compare":
        from selfimprove.app.comparing import compare

        return compare(arguments)
    if arguments.command == "redteam":
        from selfimprove.app.redteam import redteam

        return redteam(arguments)
    if arguments.command is None:
        from selfimprove.app.next_steps import next_steps

        return next_steps()
    commands = importlib.import_module("selfimprove.app.commands")
    return int(getattr(commands, arguments.command)(arguments))


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
