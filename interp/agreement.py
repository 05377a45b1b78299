"""Does the hooked copy say what the trained model says? What is read in a copy of another model is not believed.

Logits are compared relative to the largest of them, as rounding is. That alone could be bought: one huge logit that
never wins would excuse any difference of the others. So the predictions that the logits make are compared as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.verdict import Unreadable

TOLERANCE = 1e-4  # largest difference between fused and hooked logits, over the largest logit where that exceeds 1
DISTANCE = 1e-2  # largest total-variation distance between the predictions of a position; rounding makes some 1e-6


@dataclass(frozen=True)
class Agreement:
    """How far two copies of one model are apart.

    Attributes:
        difference: the largest between their logits, over the largest logit where that exceeds 1: fp32 keeps about
            seven digits, so that logits in the hundreds cannot agree to an absolute 1e-4.
        distance: the largest between their predictions for a position, from 0 to 1 (total variation).
    """

    difference: float
    distance: float

    @classmethod
    def of(cls, fused: Float[Tensor, "*lead vocab"], hooked: Float[Tensor, "*lead vocab"], what: str) -> Agreement:
        """Compare logits of the same tokens.

        Raises:
            Unreadable: logits of ``what`` that are not finite.
        """
        if not (torch.isfinite(fused).all() and torch.isfinite(hooked).all()):
            raise Unreadable(f"logits {what}", "non-finite values", "finite numbers")
        scale = max(1.0, float(fused.abs().max()))
        apart = (fused.softmax(-1) - hooked.softmax(-1)).abs().sum(-1) / 2
        return cls(float((fused - hooked).abs().max()) / scale, float(apart.max()))

    def require(self, what: str) -> None:
        """Both are within their bounds.

        Raises:
            Unreadable: one is not.
        """
        bounds = {"logits": (self.difference, TOLERANCE), "predictions": (self.distance, DISTANCE)}
        for name, (value, most) in bounds.items():
            if not value <= most:
                raise Unreadable(f"hooked {name} {what}", f"{value:.3g} from the trained model's", f"at most {most:g}")
