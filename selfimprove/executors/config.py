"""The configuration of an executor, frozen and typed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExecutorConfig:
    """Where trainings run. Whatever is chosen, equal seeds give the equal lineage on equal processors."""

    kind: str = "local"
    """``local``: workers of this machine; ``slurm``: nodes of a job array; ``ray``: nodes of an existing cluster."""
    nodes: int = 4
    """Most nodes at once: the size of the job array, or the number of Ray actors."""
    workers: int = 4
    """Workers at once on one node, a core each."""
    pack: int = 8
    """Most trainings that a node is handed at a time."""
    memory_gb: float = 8.0
    """Memory to ask for, a node, in GB."""
    gpus: int = 0
    """GPUs to ask for, a node."""
    minutes: int = 120
    """Longest life of a node of Slurm, in minutes."""
    queue_minutes: float = 60.0
    """How long a node may wait to be started before it is asked for anew, in minutes."""
    idle_minutes: float = 10.0
    """How long a node waits for work before it ends by itself, in minutes."""
    silence_seconds: float = 60.0
    """Longest silence between head and node: after it a node ends itself, and after twice that the head gives it up."""
    attempts: int = 3
    """Times in a row that lost nodes are asked for anew with nothing done in between; then the run stops."""
    partition: str = ""
    """Slurm's partition; empty: the default one."""
    account: str = ""
    """Slurm's account; empty: the default one."""
    qos: str = ""
    """Slurm's quality of service; empty: the default one."""
    constraint: str = ""
    """Features that a Slurm node must have; empty: any."""
    setup: tuple[str, ...] = ()
    """Shell lines before the node's program, in a Slurm job."""
    address: str = "auto"
    """Address of the Ray cluster."""
