"""Optimizers of the recipe space: torch's AdamW, its SGD with another decay; Lion and Muon are ours, as said there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from selfimprove.errors import ConfigError
from selfimprove.genome.recipe import Recipe
from selfimprove.nets.cost import is_muon_matrix, muon_shape
from selfimprove.nets.prices import NEWTON_SCHULZ_STEPS

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
MUON_RMS = 0.2  # matches the size of AdamW's updates, so that one learning rate serves both (arXiv 2502.16982)


class Eager(Optimizer):
    """torch's base without what it wraps around these methods for its compiler, which the first call would import.

    Nothing here is compiled; the import is 800 modules, more than a second and 60 MB, in every worker.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)


class AdamW(Eager, torch.optim.AdamW):
    """torch's (Loshchilov and Hutter 2019, arXiv 1711.05101), its step unwrapped as well."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        inspect.unwrap(torch.optim.AdamW.step)(self, closure)


class Lion(Eager):
    """Sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675). Not in torch."""

    def __init__(self, params: Iterable[Any], *, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                update = torch.lerp(p.grad, momentum, beta1).sign_()
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
                momentum.lerp_(p.grad, 1 - beta2)


class SGD(Eager, torch.optim.SGD):
    """torch's, but for weight decay, which is decoupled here (Loshchilov and Hutter 2019, arXiv 1711.05101).

    torch adds it to the gradient, where momentum carries it on: parameters overshoot zero. The groups say ``decay``.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["decay"])
        inspect.unwrap(torch.optim.SGD.step)(self, closure)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrix, roughly, by the quintic Newton-Schulz iteration of Muon (Jordan et al. 2024).

    Args:
        matrix: ``[rows, columns]``.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(Eager):
    """Momentum, orthogonalized, for hidden matrices (Jordan et al. 2024).

    torch's own takes two-dimensional parameters only; our attention weights keep TransformerLens's three axes
    ``[heads, d_model, d_head]`` and are read as one ``[d_model, heads * d_head]`` matrix (``W_O`` likewise).
    """

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                nesterov = torch.lerp(p.grad, momentum, group["momentum"])
                update = _from_matrix(orthogonalize(_as_matrix(nesterov)), p)
                scale = MUON_RMS * max(_as_matrix(p).shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def _as_matrix(p: Tensor) -> Tensor:
    """``[in, out]`` view of a matrix or of a per-head stack, in the shape that is priced."""
    rows, columns = muon_shape(tuple(p.shape))
    return (p.transpose(0, 1) if rows == p.shape[1] and p.ndim == 3 else p).reshape(rows, columns)


def _from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    if like.ndim == 3 and matrix.shape[0] == like.shape[1]:
        heads, first, second = like.shape
        return matrix.reshape(first, heads, second).transpose(0, 1)
    return matrix.reshape(like.shape)


def decayed(name: str) -> bool:
    """Whether weight decay applies: projections and embeddings, not norms and convolutions."""
    return name.rpartition(".")[2].startswith("W_")


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[Optimizer]:
    """Optimizers of a recipe over all of a model's parameters; their ``lr`` is the recipe's peak.

    Raises:
        ConfigError: unknown optimizer.
    """
    named = list(model.named_parameters())

    def groups(chosen: Callable[[str], bool]) -> list[dict[str, Any]]:
        return [
            {"params": [p for n, p in named if chosen(n) and decayed(n) == decays], "weight_decay": decay}
            for decays, decay in ((True, recipe.weight_decay), (False, 0.0))
        ]

    everything = groups(lambda _: True)
    lr, betas = recipe.learning_rate, (recipe.beta1, recipe.beta2)
    match recipe.optimizer:
        case "adamw":
            return [AdamW(everything, lr=lr, betas=betas, fused=True)]
        case "sgd":
            decoupled = [{"params": group["params"], "decay": group["weight_decay"]} for group in everything]
            return [SGD(decoupled, lr=lr, momentum=recipe.beta1, nesterov=True)]
        case "lion":
            return [Lion(everything, lr=lr, betas=betas, weight_decay=recipe.weight_decay)]
        case "muon":
            hidden = [p for n, p in named if is_muon_matrix(n)]
            return [
                Muon(hidden, lr=lr, momentum=recipe.beta1, weight_decay=recipe.weight_decay),
                AdamW(groups(lambda n: not is_muon_matrix(n)), lr=lr, betas=betas, fused=True),
            ]
        case unknown:
            raise ConfigError("recipe.optimizer", unknown, "adamw, lion, muon, sgd")


def memory(model: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """What the optimizers remember of every parameter, as ``<what>:<parameter>``, float32 on the CPU.

    A parameter that has had no gradient yet is not in it.
    """
    found = {}
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            for what, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    found[f"{what}:{name}"] = value.detach().float().cpu().contiguous()
    return found


def load_memory(model: nn.Module, optimizers: list[Optimizer], remembered: dict[str, Tensor]) -> None:
    """Give the optimizers of a new process what those of an earlier one remembered; see :func:`memory`."""
    owners = {parameter: o for o in optimizers for group in o.param_groups for parameter in group["params"]}
    parameters = dict(model.named_parameters())
    for key, value in remembered.items():
        what, _, name = key.partition(":")
        parameter = parameters[name]
        owners[parameter].state[parameter][what] = value.to(parameter.device, copy=True)
