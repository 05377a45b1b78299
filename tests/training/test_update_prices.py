"""What the update of the weights is charged is what torch is asked to do for it, operation by operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from selfimprove.genome.recipe import Recipe
from selfimprove.nets import prices
from selfimprove.nets.prices import COSTLY
from selfimprove.training.averaging import Average
from selfimprove.training.optimizers import make_optimizers

SIZES = ((24, 40), (32, 32))
# Additions, multiplications and comparisons of one element; matrix products are counted elsewhere, copies are free.
WORK: dict[str, int] = {
    "add": 2,  # with a factor
    "mul": 1,
    "lerp": 3,
    "sign": 1,
    "sqrt": COSTLY,
    "div": COSTLY,
    "addcmul": 3,
    "addcdiv": COSTLY + 2,
    "linalg_vector_norm": 2,
    "addmm": 3,  # beside the product: two factors and a sum
}
FREE = {
    "zeros_like",
    "clone",
    "t",
    "permute",
    "transpose",
    "view",
    "_unsafe_view",
    "detach",
    "mm",
    "_to_copy",
    "empty",
    "_local_scalar_dense",
}


class Counter(TorchDispatchMode):
    """Counts elementwise work on tensors of more than one element; an operation it does not know is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.work = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__.rstrip("_")
        elements = max((a.numel() for a in args if isinstance(a, Tensor)), default=0)
        if elements > 1 and name not in FREE:
            out = args[0] if name == "addmm" else None  # of addmm, what is added to has the shape of what comes out
            self.work += WORK[name] * (elements if out is None else out.numel())
        return function(*args, **(kwargs or {}))


def counted(step: Callable[[], object]) -> int:
    with Counter() as counter:
        step()
    return counter.work


def model(size: tuple[int, int] = SIZES[0]) -> nn.Module:
    """One matrix of a block, with a gradient."""
    found = nn.Module()
    found.blocks = nn.Module()
    weight = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(0)))
    weight.grad = torch.ones_like(weight)
    found.blocks.register_parameter("W_in", weight)
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("optimizer", sorted(prices.OPTIMIZER))
def test_an_optimizer_is_charged_what_it_does_to_each_element(optimizer: str, size: tuple[int, int]) -> None:
    first = make_optimizers(model(size), Recipe(optimizer=optimizer))[0]
    for group in first.param_groups:
        group["fused"] = False  # one kernel would say nothing of what is in it
    first.step()  # from the second step on nothing is set up any more
    assert counted(first.step) / math.prod(size) == pytest.approx(prices.OPTIMIZER[optimizer], rel=0.25)


def test_averaging_is_charged_what_it_does_to_each_element() -> None:
    average = Average(model(), 0.9)
    assert counted(lambda: average.update(0)) == prices.EMA * math.prod(SIZES[0])


def test_without_averaging_nothing_is_done() -> None:
    average = Average(model(), 0.0)
    assert counted(lambda: average.update(0)) == 0
