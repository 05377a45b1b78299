"""The numerical work of real workers in small: a training step, a linear probe, linear algebra."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from sklearn.linear_model import LogisticRegression

from selfimprove.training.gpu import cap_memory


def warm_up() -> None:
    torch.set_num_threads(1)
    train(1)


def train(steps: int) -> tuple[torch.nn.Module, float]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    inputs, targets = torch.randn(64, 16), torch.arange(64) % 4
    loss = torch.tensor(0.0)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, float(loss)


def run(job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    if job["op"] == "allocate":
        torch.zeros(2**30)
    if job["op"] == "allocate_on_gpu":
        cap_memory(job)
        job["held"] = [torch.zeros(2**26, device="cuda") for _ in range(32)]  # 8 GiB
    model, loss = train(30)
    os.write(outputs["weights"], save(model.state_dict()))
    points = np.random.default_rng(0).normal(size=(200, 8))
    probe = LogisticRegression().fit(points, points[:, 0] > 0)
    singular = torch.linalg.svdvals(torch.eye(8))
    return {"loss": loss, "probe": float(probe.score(points, points[:, 0] > 0)), "singular": float(singular.sum())}
