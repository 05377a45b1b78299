"""Positions after a halt token beside the same positions of plain sequences: what tells halted from not halted.

Position and family are matched row for row, so that neither of them can tell the two apart. The halt token's own
position is left out: there the token says it all. The halted direction and the probe for *halted* both read these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.bench import Bench, Reading, Role
from interp.verdict import NotApplicable, Unreadable
from selfimprove.tasks.halt import LATENT


@dataclass(frozen=True)
class Contrast:
    """States after a halt token beside states of the same positions of plain sequences.

    Attributes:
        halted, plain: ``[layer row d_model]``; row for row the same position in a sequence of the same family.
        pair: ``[row]`` which pair of sequences a row belongs to, from 0 on.
    """

    halted: Float[Tensor, "layer row d_model"]
    plain: Float[Tensor, "layer row d_model"]
    pair: Int[Tensor, " row"]

    @property
    def pairs(self) -> int:
        return int(self.pair.max()) + 1

    def every(self, step: int, start: int) -> Contrast:
        """Every ``step``-th pair of sequences from ``start`` on, counted anew."""
        kept = self.pair % step == start
        rows = kept.to(self.halted.device)
        return Contrast(self.halted[:, rows], self.plain[:, rows], self.pair[kept] // step)

    @property
    def difference(self) -> Float[Tensor, "layer d_model"]:
        """Mean halted state minus mean plain state."""
        return self.halted.mean(1) - self.plain.mean(1)


def contrast(bench: Bench, role: Role) -> Contrast:
    """The matched states of all families of the suite, collected once for all that ask.

    Raises:
        NotApplicable: no position comes after a halt token.
        Unreadable: activations that are not finite.
    """
    return bench.once(("contrast", role), lambda: _contrast(bench, role))


def after_halt(bench: Bench, role: Role, family: str) -> tuple[Reading, Reading, Bool[Tensor, "pair pos"]]:
    """Halted and plain sequences of one family, and in which places of their pairs a halt token stands further left."""
    stopped, free = bench.halted(role, family), bench.task(role, family)
    count = min(len(stopped.tokens), len(free.tokens))
    state = stopped.latents[LATENT][:count] == 1
    after = state.clone()
    after[:, 1:] &= state[:, :-1]
    after[:, 0] = False
    return stopped, free, after


def _contrast(bench: Bench, role: Role) -> Contrast:
    halted, plain, pair, before = [], [], [], 0
    for family in bench.suite.families:
        stopped, free, after = after_halt(bench, role, family)
        count, there = len(after), after.to(stopped.residual.device)
        halted.append(stopped.residual[:, :count][:, there])
        plain.append(free.residual[:, :count][:, there])
        present, place = np.unique(after.nonzero()[:, 0].numpy(), return_inverse=True)
        pair.append(torch.from_numpy(place) + before)
        before += len(present)
    if not before:
        raise NotApplicable("halt direction", 0, "at least one position after a halt token")
    found = Contrast(torch.cat(halted, 1), torch.cat(plain, 1), torch.cat(pair))
    if not (torch.isfinite(found.halted).all() and torch.isfinite(found.plain).all()):
        raise Unreadable("halt direction", "non-finite activations", "finite numbers")
    return found
