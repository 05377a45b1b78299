"""The moving average of the weights, which is scored and kept in their place where the recipe asks for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfimprove.nets.prices import RAW


class Average:
    """Exponential moving average of a model's parameters (Polyak and Juditsky 1992), or nothing at decay 0.

    The decay of a step is at most ``(1 + step) / (10 + step)``, as in TensorFlow's: the first steps are soon forgotten.

    Args:
        model: its parameters are where the average begins.
        decay: of one step, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        named = model.named_parameters() if decay else ()
        self._mean = {name: parameter.detach().clone() for name, parameter in named}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after step ``step``."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._model.named_parameters() if self._decay else ():
            self._mean[name].lerp_(parameter, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """What is the model's in the end: the averages, or the parameters themselves; float32 on the CPU."""
        return _kept(self._model.state_dict() | self._mean)

    def memory(self) -> dict[str, Tensor]:
        """The parameters that training goes on from, as ``weight:<parameter>``, if they are not in ``state``."""
        return {f"{RAW}:{name}": value for name, value in _kept(self._model.state_dict()).items() if name in self._mean}

    def load_memory(self, remembered: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the model its own parameters back; returns what else was remembered."""
        mark = f"{RAW}:"
        own = {key.removeprefix(mark): value for key, value in remembered.items() if key.startswith(mark)}
        if own:
            self._model.load_state_dict(own)
        return {key: value for key, value in remembered.items() if not key.startswith(mark)}


def _kept(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu().contiguous() for name, value in values.items()}
