"""``selfimprove dashboard``: a W&B workspace as code, with the charts that this loop's runs log.

The package wandb-workspaces (extra ``dashboard``) turns it into W&B's own JSON. Every key that a panel names is one
that :mod:`selfimprove.app.tracked` logs; a test holds them together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from selfimprove.app import folder
from selfimprove.app.commands import recorded_tracking
from selfimprove.app.tracking import TrackingConfig
from selfimprove.errors import ConfigError, RunError

NAME = "selfimprove"
STEP = "generation"


@dataclass(frozen=True)
class Chart:
    """Lines over the generations.

    Attributes:
        title: with the unit.
        keys: of what is logged.
        pattern: of keys that only the run can name, such as one an instrument; a regular expression.
        x: the key along the axis.
    """

    title: str
    keys: tuple[str, ...] = ()
    pattern: str = ""
    x: str = STEP


@dataclass(frozen=True)
class Table:
    """A table that is logged whole at the end."""

    key: str


@dataclass(frozen=True)
class Pictures:
    """Drawings that are logged at the end."""

    key: str


SECTIONS: Mapping[str, tuple[Chart | Table | Pictures, ...]] = {
    "Search": (
        Chart("Best search skill so far, against charged FLOPs", ("search/best_so_far",), x="charged_flops"),
        Chart("Skill of the champion", ("best_skill",)),
        Chart("Confirmed gain, all promotions so far", ("search/confirmed_gain",), x="charged_flops"),
        Chart("Scores of the candidates", ("search/best_skill", "search/mean_skill")),
        Table("candidates"),
        Table("lineage"),
    ),
    "Gate and constraint": (
        Chart("Difference at the gate, paired", ("gate/difference",)),
        Chart("p-value at the gate", ("gate/p_value",)),
        Chart("Halt prompts kept", ("retention/confirmed", "retention/candidates_mean")),
        Chart("In and out of distribution", ("halt/in_distribution", "halt/out_of_distribution", "halt/false_halts")),
        Chart("The halted direction beside the parent's", pattern="^drift/"),
    ),
    "Inside the models": (
        Pictures("inspection/probe_maps"),
        Chart("Probe accuracy by layer", pattern="^probe/"),
        Chart("Probe accuracy above the control's", pattern="^probe_selectivity/"),
        Chart("Logit lens", pattern="^logit_lens/"),
        Chart("Coverage of the inspection", ("inspection/coverage",)),
        Table("inspection/probes"),
    ),
    "Controller": (
        Chart("Improvement by the best of k proposals", ("controller/imp_at_1", "controller/imp_at_4")),
        Chart("What became of the proposals", pattern="^controller/(denied|invalid|duplicate|failed|stopped)_rate$"),
        Chart("Loss, nats a token", ("controller/loss",)),
        Chart("Entropy of its proposals, nats", ("controller/proposal_entropy",)),
        Chart("Hand-overs: contender minus incumbent, nats", ("handover/difference", "handover/accepted")),
    ),
    "Budget": (
        Chart("Share of the FLOP limit that is left", ("budget/left",)),
        Chart("Charged FLOPs by account", pattern="^budget/.*_flops$"),
        Chart("Charged FLOPs", ("charged_flops",)),
    ),
}


def dashboard(arguments: argparse.Namespace) -> int:
    """Make the workspace, and print its address; or print it as JSON, without a network.

    Raises:
        ConfigError: the package is not installed, or W&B does not know whose workspace it is.
        RunError: W&B refuses or cannot be reached.
    """
    project, entity = _place(arguments)
    if arguments.json:
        print(json.dumps(as_json(workspace(entity or "ENTITY", project)), indent=2, ensure_ascii=False))
        return 0
    try:
        entity = entity or _own_entity()
        made = workspace(entity, project).save()
    except (ConfigError, KeyboardInterrupt):
        raise
    except Exception as error:  # no login, no network, no such project: W&B raises many kinds
        said = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "check wandb login, --entity and --project; --json prints it without W&B"
        raise RunError("save the workspace", f"{entity or 'no entity'}/{project} ({said})", "", remedy) from error
    print(made.url)
    return 0


def workspace(entity: str, project: str) -> Any:
    """The workspace as wandb-workspaces' own object; nothing is sent.

    Raises:
        ConfigError: that package is not installed.
    """
    try:
        panels = import_module("wandb_workspaces.reports.v2")
        spaces = import_module("wandb_workspaces.workspaces")
    except ImportError as error:
        remedy = 'pip install "selfimprove[dashboard]"'
        raise ConfigError("make a W&B workspace", "no wandb-workspaces", "that package", remedy) from error

    def panel(one: Chart | Table | Pictures) -> Any:
        if isinstance(one, Table):
            return panels.WeavePanelSummaryTable(table_name=one.key)
        if isinstance(one, Pictures):
            return panels.MediaBrowser(media_keys=[one.key])
        pattern = {"metric_regex": one.pattern} if one.pattern else {}
        return panels.LinePlot(title=one.title, x=one.x, y=list(one.keys), **pattern)

    sections = [
        spaces.Section(name=name, panels=[panel(one) for one in content], is_open=True)
        for name, content in SECTIONS.items()
    ]
    return spaces.Workspace(name=NAME, entity=entity, project=project, sections=sections)


def as_json(made: Any) -> dict[str, Any]:
    """What W&B stores of a workspace."""
    spec: dict[str, Any] = made._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return spec


def _place(arguments: argparse.Namespace) -> tuple[str, str]:
    """Project and entity: what was typed, else the run's, else the defaults; no run is needed."""
    known: Mapping[str, Any] = {}
    try:
        known = recorded_tracking(folder.find_run(arguments.run))
    except RunError:
        if arguments.run is not None:
            raise
    project = arguments.project or known.get("project") or TrackingConfig.project
    return str(project), str(arguments.entity or known.get("entity") or "")


def _own_entity() -> str:
    """The default entity of whoever is logged in."""
    import wandb

    entity = wandb.Api().default_entity
    if not entity:
        raise ConfigError("make a W&B workspace", "no entity", "an entity of yours", "name one with --entity")
    return str(entity)
