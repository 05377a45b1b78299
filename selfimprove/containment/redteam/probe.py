"""A researcher's own attacks: every function ``attack_*`` of a file, each in its own worker, where training would run.

A function that returns a true value has escaped; one that raises or is killed was contained. The file is read here and
never run here: it is loaded in the locked-down worker, in the zygote that trains candidates.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from selfimprove.containment.hostile import clean_line
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Invalid, Job, JobLimits, Outcome
from selfimprove.containment.redteam.attack import DENIED
from selfimprove.containment.redteam.prober import LOADED, SOURCE
from selfimprove.containment.redteam.runner import TRAINING_ENTRIES, WORKERS
from selfimprove.containment.redteam.verdict import CONTAINED, ESCAPED, INCONCLUSIVE, Row
from selfimprove.containment.sandbox.backend import SandboxBackend, ZygoteSpec
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import ConfigError

PREFIX: Final = "attack_"
CATEGORY: Final = "probe"
ENTRY: Final = "selfimprove.containment.redteam.prober"
LIMITS: Final = JobLimits(
    wall_seconds=20, cpu_seconds=10, memory_bytes=512 * 2**20, output_bytes=2**20, silence_seconds=20
)
_WEIGHTS: Final = "weights"  # a training step has an output to write to
_ENDED: Final = "it ended without a result"


def attacks_in(path: Path) -> dict[str, str]:
    """Return the attacks of a file, without running it: each function's name and the first line of its docstring.

    Raises:
        ConfigError: no such file, not Python, or no function to call.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise ConfigError("probe", str(path), "a Python file", str(error.strerror)) from error
    except (SyntaxError, ValueError) as error:
        raise ConfigError("probe", str(path), "a Python file", f"it cannot be read as Python: {error}") from error
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith(PREFIX)]
    if not functions:
        raise ConfigError("probe", str(path), f"a top-level function {PREFIX}...()", f"def {PREFIX}something(): ...")
    for function in functions:
        needed = len(function.args.posonlyargs + function.args.args) - len(function.args.defaults)
        if needed > 0 or None in function.args.kw_defaults:
            raise ConfigError(f"probe {path}", f"{function.name} with arguments", "functions that need none")
    return {node.name: (ast.get_docstring(node) or node.name).splitlines()[0] for node in functions}


def probe(path: Path, backend: SandboxBackend, on_row: Callable[[Row], None] | None = None) -> list[Row]:
    """Run the attacks of a file; returns one row a function, in their order.

    Raises:
        ConfigError: as for `attacks_in`.
        SandboxUnavailable: the containment cannot be set up here, or fails its own canaries.
    """
    titles = attacks_in(path)
    names = list(titles)
    jobs = [
        Job(name, CATEGORY, ENTRY, {"function": name, "file": path.name}, {SOURCE: path.resolve()}, (_WEIGHTS,), LIMITS)
        for name in names
    ]
    loaded: set[int] = set()
    rows: dict[int, Row] = {}

    def heard(index: int, event: dict[str, Any]) -> None:
        if event.get(LOADED) is True:
            loaded.add(index)

    zygotes = {CATEGORY: ZygoteSpec((*TRAINING_ENTRIES, ENTRY))}
    with Supervisor(zygotes, backend=backend, workers=WORKERS, halt_file=None, should_stop=lambda: False) as supervisor:
        for index, outcome in supervisor.run(jobs, on_event=heard):
            verdict, observed = _judge(outcome, loaded=index in loaded)
            name = names[index]
            rows[index] = Row(
                f"{CATEGORY}/{name}",
                CATEGORY,
                clean_line(titles[name], 200),
                DENIED,
                observed,
                f"all of {backend.name}",
                verdict,
                "",
            )
            if on_row is not None:
                on_row(rows[index])
    return [rows[index] for index in range(len(names))]


def _judge(outcome: Outcome, *, loaded: bool) -> tuple[str, str]:
    """Return the verdict and what was observed."""
    match outcome:
        case Completed(result={"unloadable": why}):
            return INCONCLUSIVE, f"the file could not be loaded in a worker: {clean_line(str(why), 200)}"
        case Completed(result=result):
            if result.get("escaped") is True:
                return ESCAPED, "returned a true value"
            return CONTAINED, "returned a false value"
        case Crashed(reason=reason, zygote_died=True):
            return ESCAPED, f"its zygote died: {reason}"
        case Crashed(reason=reason):
            observed = reason if reason.startswith(("killed", "exit")) else f"raised {reason}"
        case Exceeded(limit=limit, value=value, bound=bound):
            observed = f"killed: {limit} {value:.4g} over {bound:.4g}"
        case Invalid(reason=reason) if reason == _ENDED:  # it may have become another program
            return INCONCLUSIVE, reason
        case Invalid(reason=reason):
            observed = f"killed: {reason}"
    return (CONTAINED, observed) if loaded else (INCONCLUSIVE, f"while the file was loaded: {observed}")
