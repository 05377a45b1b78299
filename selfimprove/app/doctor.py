"""``selfimprove doctor``: what this machine can enforce, by which mechanism, and what to change for the rest."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from selfimprove.app import folder, machine
from selfimprove.app.machine import Problem
from selfimprove.containment.diagnosis import Finding, diagnose
from selfimprove.containment.sandbox.backend import INDISPENSABLE
from selfimprove.containment.sandbox.layers import outer_layers
from selfimprove.containment.sandbox.outer import Layer

_SHOWN = {"held": "held", "lost": "LOST", "unproven": "UNPROVEN"}


def doctor(arguments: argparse.Namespace) -> int:
    """Examine this machine; 0 when a run could start here, 1 otherwise."""
    found = examine()
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        from rich import get_console

        for line in describe(found):
            get_console().print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if found["can_start"] else 1


def examine() -> dict[str, Any]:
    """Everything that ``doctor --json`` prints; its keys are stable."""
    python, old = machine.python()
    packages, missing = machine.packages()
    disk, full = machine.disk(folder.RUNS)
    devices = machine.cuda()
    findings = diagnose()
    problems = [*_lost(findings), *filter(None, (old, *missing, full, machine.state()))]
    on_gpu = diagnose("cuda") if devices["available"] else None
    if on_gpu is not None:
        problems += [Problem(f"on the GPU, {p.what}", f"{p.remedy}; or use device=cpu") for p in _lost(on_gpu)]
    return {
        "can_start": not problems,
        "problems": [asdict(problem) for problem in problems],
        "properties": _plain(findings),
        "properties_cuda": None if on_gpu is None else _plain(on_gpu),
        "outer_layer": {name: asdict(layer) for name, layer in outer_layers().items()},
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": python,
        "packages": packages,
        "cuda": devices,
        "disk": disk,
        "wandb": machine.wandb_login(os.environ),
    }


def describe(found: Mapping[str, Any]) -> list[str]:
    """The same as lines for a person."""
    where = f"{found['kernel']}, {found['architecture']}"
    lines = [f"Containment on {where}: a worker was locked down and tried to break out."]
    rows: list[tuple[str, ...]] = [("property", "state", "mechanism", "its canary met")]
    for name, finding in found["properties"].items():
        met = finding["proof"] or ("nothing" if finding["state"] == "lost" else "not tried")
        rows.append((name, _SHOWN[finding["state"]], finding["mechanism"] or "none", met))
    lines += _columns(rows)
    lines += ["", "Outer layer: a second wall, which no property depends on. A run uses what is available of it;"]
    lines.append("to change that: containment.outer_layer=off, or =require to refuse a run without bubblewrap.")
    lines += [_layer(name.replace("_", " "), Layer(**layer)) for name, layer in found["outer_layer"].items()]
    lines += ["", "This machine", *_columns(_facts(found)), ""]
    if found["can_start"]:
        return [*lines, "A run can start here."]
    lines.append("No run can start here:")
    for problem in found["problems"]:
        lines += [f"  {problem['what']}", f"    remedy: {problem['remedy']}"]
    return lines


def _facts(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    cuda, wandb, disk = found["cuda"], found["wandb"], found["disk"]
    packages = ", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items())
    devices = ", ".join(cuda["devices"]) or "yes" if cuda["available"] else f"not available: {cuda['why']}"
    login = f"logged in ({wandb['source']})" if wandb["logged_in"] else "not logged in: tracking stays offline"
    return [
        ("Python", found["python"]),
        ("packages", packages),
        ("CUDA", devices),
        ("disk", f"{disk['free_bytes'] / 2**30:.1f} GiB free for {disk['folder']}"),
        ("W&B", f"{wandb['version'] or 'not installed'}, {login}"),
    ]


def _lost(findings: Mapping[str, Finding]) -> list[Problem]:
    """What is lost, properties with one cause together; what could not be tried only where nothing is lost."""
    worst = "lost" if any(finding.state == "lost" for finding in findings.values()) else "unproven"
    causes: dict[str, list[str]] = {}
    for name, finding in findings.items():
        if finding.state == worst:
            causes.setdefault(finding.problem, []).append(name)
    problems = []
    for cause, names in causes.items():
        hardest = min(names, key=lambda name: name not in INDISPENSABLE)
        verb = "are" if len(names) > 1 else "is"
        problems.append(Problem(f"{', '.join(names)} {verb} {worst}: {cause}", findings[hardest].remedy))
    return problems


def _plain(findings: Mapping[str, Finding]) -> dict[str, Any]:
    return {name: asdict(finding) for name, finding in findings.items()}


def _layer(name: str, layer: Layer) -> str:
    if layer.available:
        return f"  {name:<11} available: {layer.detail}"
    return f"  {name:<11} not available: {layer.detail}; {layer.remedy}"


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
