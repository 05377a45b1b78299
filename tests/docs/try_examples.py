"""Run what the pages show, in the folder that holds their files and a run: started by ``test_examples.py``.

Prints JSON: by page, what went wrong in it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from selfimprove.app.cli import build_parser, main
from selfimprove.app.launch import _parse
from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from

TRIED = ("status", "audit", "inspect", "report", "claim")  # on the run that is there; others are only parsed


def pages() -> ModuleType:
    """The module beside this file, which is no package here."""
    spec = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("pages.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pages"] = module
    spec.loader.exec_module(module)
    return module


def check_run(words: list[str]) -> None:
    """A command line of ``selfimprove run`` composes to a valid configuration, every value of a sweep."""
    if "--help" in words:
        return
    arguments = _parse(words)
    folder = Path(arguments.config_dir) if arguments.config_dir else None
    plain, swept = [], [""]
    for override in arguments.overrides:
        key, _, value = override.partition("=")
        if arguments.multirun and "," in value:
            swept = [f"{key}={one}" for one in value.split(",")]
        else:
            plain.append(override)
    for one in swept:
        check_settings((*plain, *filter(None, [one])), folder)


@cache
def check_settings(overrides: tuple[str, ...], folder: Path | None) -> None:
    """Checked once, however many pages show it: composing takes a fifth of a second."""
    settings_from(compose(overrides, folder))


def check_command(words: list[str]) -> None:
    """A command of ours is valid; what costs little is run, and must succeed."""
    if words[0] == "run":
        check_run(words[1:])
    elif words[0] in TRIED and not {"--full", "--baseline", "--beside"} & set(words) and "runs/some" not in words:
        assert main(words) == 0, "it failed"
    elif words[0] in ("study", "benchmark"):
        from selfimprove.app import studies

        registry = studies.STUDIES if words[0] == "study" else studies.BENCHMARKS
        assert not words[1:] or words[1] in registry, (
            f"there is no {words[0]} {words[1]}"
        )  # without one: they are listed
    else:
        build_parser().parse_args(words)


def problems(page: Any, shown: ModuleType) -> list[str]:
    """What went wrong on one page."""
    found = []
    checks = [
        (" ".join(words), check_command, words[1:]) for words in shown.commands(page) if words[0] == "selfimprove"
    ]
    script = compile(shown.code(page), shown.name(page), "exec")
    for what, check, argument in [("its Python", exec, script), *checks]:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                check(argument, {"__name__": "example"}) if check is exec else check(argument)
        except (Exception, SystemExit) as error:
            if not (isinstance(error, SystemExit) and error.code == 0):
                found.append(f"{what}:\n{said.getvalue()[-2000:]}\n{traceback.format_exc()}")
    return found


if __name__ == "__main__":
    sys.path.insert(0, "")  # as in a session: the folder that one works in
    shown = pages()
    print(json.dumps({shown.name(page): problems(page, shown) for page in shown.PAGES}))
