"""selfimprove: a contained, inspectable toy loop of recursive self-improvement.

What stands here is the public API, beside that of ``interp``, the configuration and the command line; everything else
may change without notice. Importing this package costs nothing: each name loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from selfimprove.controller.config import ControllerConfig
    from selfimprove.controller.proposer import Experience, Proposal, Proposer, Update
    from selfimprove.controller.registry import register as register_controller
    from selfimprove.controller.sampler import ControllerSampler
    from selfimprove.errors import (
        ConfigError,
        InvalidCheckpoint,
        InvalidEdit,
        InvalidGenome,
        LedgerError,
        RunError,
        SandboxUnavailable,
        SelfImproveError,
    )
    from selfimprove.genome.architecture import Architecture, Block
    from selfimprove.genome.edits import Edit, parse_edit
    from selfimprove.genome.edits import apply as apply_edit
    from selfimprove.genome.expression import Expression
    from selfimprove.genome.genome import Genome, Objective, seed_genome
    from selfimprove.genome.recipe import Recipe
    from selfimprove.genome.space import Space, SpaceConfig
    from selfimprove.loop.standing import RunSummary, status
    from selfimprove.nets.cost import Quote, quote
    from selfimprove.nets.screening import ScreenResult, screen
    from selfimprove.nets.transformer import Transformer, build
    from selfimprove.tasks.batch import Batch
    from selfimprove.tasks.family import Family, Latent, Setting, Stream
    from selfimprove.tasks.registry import register as register_family
    from selfimprove.tasks.suite import TasksConfig, TaskSuite

_HOMES = {
    "Architecture": "genome.architecture.Architecture",
    "Batch": "tasks.batch.Batch",
    "Block": "genome.architecture.Block",
    "ConfigError": "errors.ConfigError",
    "ControllerConfig": "controller.config.ControllerConfig",
    "ControllerSampler": "controller.sampler.ControllerSampler",
    "Edit": "genome.edits.Edit",
    "Experience": "controller.proposer.Experience",
    "Expression": "genome.expression.Expression",
    "Family": "tasks.family.Family",
    "Genome": "genome.genome.Genome",
    "InvalidCheckpoint": "errors.InvalidCheckpoint",
    "InvalidEdit": "errors.InvalidEdit",
    "InvalidGenome": "errors.InvalidGenome",
    "Latent": "tasks.family.Latent",
    "LedgerError": "errors.LedgerError",
    "Objective": "genome.genome.Objective",
    "Proposal": "controller.proposer.Proposal",
    "Proposer": "controller.proposer.Proposer",
    "Quote": "nets.cost.Quote",
    "Recipe": "genome.recipe.Recipe",
    "RunError": "errors.RunError",
    "RunSummary": "loop.standing.RunSummary",
    "SandboxUnavailable": "errors.SandboxUnavailable",
    "ScreenResult": "nets.screening.ScreenResult",
    "SelfImproveError": "errors.SelfImproveError",
    "Setting": "tasks.family.Setting",
    "Space": "genome.space.Space",
    "SpaceConfig": "genome.space.SpaceConfig",
    "Stream": "tasks.family.Stream",
    "TaskSuite": "tasks.suite.TaskSuite",
    "TasksConfig": "tasks.suite.TasksConfig",
    "Transformer": "nets.transformer.Transformer",
    "Update": "controller.proposer.Update",
    "apply_edit": "genome.edits.apply",
    "build": "nets.transformer.build",
    "parse_edit": "genome.edits.parse_edit",
    "quote": "nets.cost.quote",
    "register_controller": "controller.registry.register",
    "register_family": "tasks.registry.register",
    "screen": "nets.screening.screen",
    "seed_genome": "genome.genome.seed_genome",
    "status": "loop.standing.status",
}

__all__ = [
    "Architecture",
    "Batch",
    "Block",
    "ConfigError",
    "ControllerConfig",
    "ControllerSampler",
    "Edit",
    "Experience",
    "Expression",
    "Family",
    "Genome",
    "InvalidCheckpoint",
    "InvalidEdit",
    "InvalidGenome",
    "Latent",
    "LedgerError",
    "Objective",
    "Proposal",
    "Proposer",
    "Quote",
    "Recipe",
    "RunError",
    "RunSummary",
    "SandboxUnavailable",
    "ScreenResult",
    "SelfImproveError",
    "Setting",
    "Space",
    "SpaceConfig",
    "Stream",
    "TaskSuite",
    "TasksConfig",
    "Transformer",
    "Update",
    "__version__",
    "apply_edit",
    "build",
    "parse_edit",
    "quote",
    "register_controller",
    "register_family",
    "screen",
    "seed_genome",
    "status",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'selfimprove' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = _HOMES[name].rpartition(".")
    return getattr(import_module(f"selfimprove.{module}"), attribute)
