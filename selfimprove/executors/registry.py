"""Executors by name."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from selfimprove.errors import ConfigError, RunError
from selfimprove.executors.cluster import ClusterExecutor
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.fleet import Fleet
from selfimprove.executors.messages import Order
from selfimprove.executors.scheduler import Scheduler

FOLDER: Final = "nodes"  # of the run folder, where head and nodes talk
LOCAL: Final = "local"


def _slurm(config: ExecutorConfig, run_dir: Path) -> Scheduler:
    from selfimprove.executors.slurm import SlurmScheduler

    return SlurmScheduler(config, run_dir / FOLDER)


def _ray(config: ExecutorConfig, run_dir: Path) -> Scheduler:
    from selfimprove.executors.ray_cluster import RayScheduler

    return RayScheduler(config)


CLUSTERS: Final[Mapping[str, Callable[[ExecutorConfig, Path], Scheduler]]] = {"slurm": _slurm, "ray": _ray}
KINDS: Final = (LOCAL, *CLUSTERS)
NEEDS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "slurm": {"submitit": ("sbatch", "squeue", "scancel")},
    "ray": {"ray": ()},
}
"""Package and programs by kind."""


def require(config: ExecutorConfig) -> None:
    """Refuse a run whose executor this machine cannot use, before anything is written.

    Raises:
        ConfigError: an unknown kind.
        RunError: a package or a program is missing.
    """
    if config.kind not in KINDS:
        raise ConfigError("set executor.kind", config.kind, ", ".join(KINDS))
    for package, programs in NEEDS.get(config.kind, {}).items():
        operation, missing = f"use executor={config.kind}", [name for name in programs if shutil.which(name) is None]
        if importlib.util.find_spec(package) is None:
            remedy = f'pip install "selfimprove[{config.kind}]", or executor=local'
            raise RunError(operation, f"the package {package} is missing", "an installed one", remedy)
        if missing:
            remedy = "run where jobs are submitted, or executor=local"
            raise RunError(operation, f"no {', '.join(missing)} on this machine", ", ".join(programs), remedy)


def make_cluster(
    config: ExecutorConfig,
    order: Order,
    run_dir: Path,
    *,
    halt_file: Path,
    should_stop: Callable[[], bool],
    on_unattended: Callable[[str, str], None],
    on_node: Callable[[Mapping[str, Any]], None],
) -> ClusterExecutor:
    """The executor of a configuration that is not local: this machine's is its supervisor.

    Args:
        config: which one.
        order: what nodes are told first.
        run_dir: the run.
        halt_file: its kill switch.
        should_stop, on_unattended: as for the supervisor.
        on_node: told of every array that is asked for, every node that is ready, and every one that is lost.

    Raises:
        ConfigError, RunError: see `require`; or there is no such cluster.
    """
    require(config)
    scheduler = CLUSTERS[config.kind](config, run_dir)
    seen = replace(order, halt_file=str(halt_file.resolve()) if config.kind == "slurm" else "")
    fleet = Fleet(config, scheduler, seen.encode(), time.monotonic, on_node)
    return ClusterExecutor(
        config, fleet, halted=halt_file.exists, should_stop=should_stop, on_unattended=on_unattended
    )  # fmt: skip
