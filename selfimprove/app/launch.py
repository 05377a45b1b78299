"""``selfimprove run``: Hydra composes, sweeps and makes the run folder; everything after that is the session's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from selfimprove.app import folder
from selfimprove.app.overrides import (
    CONFIG_NAME,
    config_folder,
    explained,
    foresee,
    full_errors,
    groups,
    plain,
)
from selfimprove.app.schema import leaves, suggest
from selfimprove.app.session import EXIT_INTERRUPTED, EXIT_USER, check_new, hold
from selfimprove.app.settings import settings_from
from selfimprove.errors import ConfigError, SelfImproveError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SHOWING = ("cfg", "info", "hydra_help", "shell_completion")


def launch(argv: Sequence[str]) -> int:
    """Run with these Hydra arguments; returns the exit code, of a sweep the most serious one.

    Raises:
        ConfigError: anything wrong with the arguments; nothing has been created then.
        RunError: the folder holds a run, of which nothing was changed; or it cannot be made.
    """
    arguments = _parse(list(argv))
    shows = any(getattr(arguments, name) for name in _SHOWING)
    extra = _config_dir(arguments.config_dir)
    if not shows and not _sweeps(arguments):
        values, place = foresee(arguments.overrides, extra)
        settings_from(values)  # refuse before a run folder is made
        if place:
            check_new(place)  # before Hydra writes its own files there
    jobs = _Jobs()

    from hydra import main as hydra_main

    decorated = hydra_main(config_path=str(config_folder()), config_name=CONFIG_NAME, version_base="1.3")(jobs.task)
    try:
        with explained(), full_errors(), _command_line(_overrides_first(argv, arguments.overrides)):
            decorated()
    except BrokenPipeError:  # nobody reads what Hydra shows, which says nothing of the folder
        raise
    except OSError as error:
        raise folder.explain(error, "make the run folder", _place(arguments.overrides)) from error
    if jobs.problem:
        raise jobs.problem
    return max(jobs.codes, default=0)  # of a sweep the most serious one


def help_text() -> str:
    """Help of ``selfimprove run``, with the groups that exist; needs no Hydra."""
    options = "\n".join(f"  {group + '=':<13} {', '.join(names)}" for group, names in groups().items())
    return f"""usage: selfimprove run [key=value ...] [-m] [Hydra options]

Run the loop: propose edits, train the candidates in the sandbox, inspect, promote, repeat.

Choose a config group:
{options}

Set any key:
  seed=3  generations=8  candidates=20  controller.steps=80  hydra.run.dir=elsewhere/my_run

Examples:
  selfimprove run                                  the default experiment, a few minutes on a laptop
  selfimprove run experiment=tiny                  the whole loop in about a minute
  selfimprove run controller=random seed=1         the first baseline
  selfimprove run -m seed=1,2,3                    a sweep: one run for each value
  selfimprove run --cfg job                        print the composed configuration and stop
  selfimprove run --config-dir my_conf ...         add a folder of your own configs

Runs land in runs/<experiment>/<time>; runs/latest is the one started or resumed last.
First Ctrl-C: finish the step, save, say how to resume. Second: stop at once.
More Hydra options: selfimprove run --hydra-help"""


class _Jobs:
    """The task that Hydra calls: once, or once for each value of a sweep. It never raises what a person should read."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.problem: SelfImproveError | None = None

    def task(self, config: DictConfig) -> None:
        """Run one job. In a sweep a refused one does not keep the others from running."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra = HydraConfig.get()
        sweeping = hydra.mode == RunMode.MULTIRUN
        try:
            self.codes.append(hold(settings_from(plain(config)), _shortest(Path(hydra.runtime.output_dir))))
        except SelfImproveError as error:  # Hydra would print its own lines about an exception that passes it
            if not sweeping:
                self.problem = error
                return
            print(f"selfimprove: job {hydra.job.num}: {error}", file=sys.stderr)
            self.codes.append(EXIT_USER)
        if sweeping and self.codes[-1] == EXIT_INTERRUPTED:
            raise KeyboardInterrupt  # the rest of the sweep is not wanted either


def _parse(argv: list[str]) -> argparse.Namespace:
    """Hydra's own parser (``hydra-core`` is pinned below 1.4), with one-line refusals of unknown flags."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    flags = [option for action in parser._actions for option in action.option_strings]

    def refuse(message: str) -> NoReturn:
        wrong = next(iter(message.partition("arguments: ")[2].split()), message)
        hint = suggest(wrong, flags) or "see selfimprove run --help"
        raise ConfigError("read command line", wrong, "key=value, -m, and Hydra's options", hint)

    parser.error = refuse  # type: ignore[method-assign]
    arguments = parser.parse_intermixed_args(argv)  # so that -m may stand between overrides
    if arguments.experimental_rerun:
        raise ConfigError(
            "read command line",
            "--experimental-rerun",
            "overrides and Hydra's other options",
            "it loads a pickle: use selfimprove resume",
        )
    for override in arguments.overrides:
        if override.startswith("-"):
            refuse(f"unrecognized arguments: {override}")
        if override.startswith("~") and (name := override[1:].partition("=")[0]) in _decisive():
            raise ConfigError("take away", name, "keys that no run needs", f"leave out {override}, or set {name}")
        if override.startswith("hydra.run.dir=") and _sweeps(arguments):
            remedy = f"say hydra.sweep.dir={override.partition('=')[2]}"
            raise ConfigError("place a sweep", override, "hydra.sweep.dir and hydra.sweep.subdir", remedy)
    return arguments


def _decisive() -> set[str]:
    """Keys and groups that decide about a run: one that was taken away would be decided elsewhere, and unseen."""
    from selfimprove.loop.config import RunConfig

    parts = [path.split(".") for path in leaves(RunConfig) if path != "experiment"]  # whose group is a choice of others
    return {".".join(path[:length]) for path in parts for length in range(1, len(path) + 1)}


def _overrides_first(argv: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The same command line in the one order that Hydra's parser takes: ``a=1 b=2 -m`` for ``a=1 -m b=2``."""
    flags = list(argv)
    for override in overrides:
        flags.remove(override)
    return [*overrides, *flags]


def _sweeps(arguments: argparse.Namespace) -> bool:
    return bool(arguments.multirun) or any(o.lower() == "hydra.mode=multirun" for o in arguments.overrides)


def _place(overrides: Sequence[str]) -> str:
    """Where the run folder was to be, as far as the command line says."""
    chosen = [text.partition("=")[2] for text in overrides if text.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
    return chosen[-1] if chosen else str(folder.RUNS)


def _config_dir(given: str | None) -> Path | None:
    if given is None:
        return None
    if not Path(given).is_dir():
        raise ConfigError("read --config-dir", given, "an existing folder", "check the spelling")
    return Path(given)


def _shortest(path: Path) -> Path:
    """Relative to the current folder where possible: shorter to read and to type."""
    return path.relative_to(Path.cwd()) if Path.cwd() in path.parents else path


@contextmanager
def _command_line(argv: Sequence[str]) -> Iterator[None]:
    """``hydra.main`` reads ``sys.argv`` and nothing else."""
    before: list[Any] = sys.argv
    sys.argv = ["selfimprove run", *argv]
    try:
        yield
    finally:
        sys.argv = before
