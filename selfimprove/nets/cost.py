"""What a genome will cost, from formulas alone: FLOPs, parameters, memory. Imports no torch.

Matrix products are counted exactly as torch's ``FlopCounterMode`` counts them on the explicit path (attention over the
full square, since a causal mask saves no multiplication there): two FLOPs a multiply-add, the backward pass twice the
forward, since every operand of every product needs a gradient (tokens enter by look-up, which is no product).

Everything else is counted by the constants in ``selfimprove.nets.prices``, forward and backward together, per element.
Remainders of a row or a step, such as the one root of a norm or the one factor of a loss, are left out. An operation
without a price raises ``InvalidGenome``: nothing is trained that cannot be priced.

Every position is priced as if it were scored, by the objective and by the fixed constraint beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from selfimprove.genome.architecture import Architecture
from selfimprove.genome.expression import Expression
from selfimprove.genome.genome import Genome
from selfimprove.genome.recipe import Recipe
from selfimprove.nets.block_cost import block_prices, check_windows, norm_shapes, priced
from selfimprove.nets.phases import PricedPhase, Size, longest_plan, sizes
from selfimprove.nets.prices import (
    CLIP,
    CONSTRAINT,
    EMA,
    EMBEDDING,
    FLOAT_BYTES,
    HEAD,
    NEWTON_SCHULZ_STEPS,
    NORM,
    OBJECTIVE,
    OPTIMIZER,
    OVER_VOCABULARY,
    POSITIONS,
    RAW,
    REMEMBERED,
    SOFTCAP,
    STATE,
    VECTORS,
)


@dataclass(frozen=True)
class Quote:
    """The price of training one genome once, with one seed. All numbers are integers."""

    parameters: int
    """Trainable numbers."""
    matmul_flops_per_step: int
    """Matrix products of the model, forward and backward, over one batch of full size."""
    elementwise_flops_per_step: int
    """All other work of the model and the loss, forward and backward, over one batch of full size."""
    optimizer_flops_per_step: int
    """Clipping, the update with Muon's matrix products, and averaging of weights."""
    flops_per_step: int
    """Sum of the three: what the dearest step costs."""
    steps: int
    """As many whole steps as fit into the allowance; 0 if none does."""
    flops: int
    """Of all steps, each at its own size; never above the allowance."""
    tokens: int
    """Positions seen in all steps."""
    memory_bytes: int
    """Parameters, gradients, optimizer state and saved activations at their peak, within a factor of 2 on a CPU. What
    an empty process with torch takes (some 250 MB) is not in it."""
    phases: tuple[PricedPhase, ...]
    """The steps by what one of them costs, in order."""

    def flops_between(self, first: int, last: int) -> int:
        """FLOPs of the steps from ``first`` to before ``last``."""
        return sum(part.overlap(first, last) * part.flops_per_step for part in self.phases)

    def tokens_between(self, first: int, last: int) -> int:
        """Positions seen in the steps from ``first`` to before ``last``."""
        return sum(part.overlap(first, last) * part.size.tokens for part in self.phases)


@lru_cache(maxsize=1024)  # asked for again with every permit
def quote(genome: Genome, *, vocab_size: int, context: int, allowance_flops: int) -> Quote:
    """Price a genome.

    Args:
        genome: what would be trained.
        vocab_size: number of tokens.
        context: positions of a sequence.
        allowance_flops: the fixed allowance that width, batch and steps share.

    Raises:
        InvalidGenome: for an operation without a price.
    """
    architecture, recipe = genome.architecture, genome.recipe
    check_windows(architecture, context)
    shapes = parameter_shapes(architecture, vocab_size, context, genome.heads)
    optimizer = _optimizer_flops(recipe, shapes)
    work = {size: _work(genome, vocab_size, size) for size in sizes(recipe, context).values()}
    price = {size: sum(parts) + optimizer for size, parts in work.items()}
    plan = longest_plan(recipe, context, price, allowance_flops)
    full = list(work)[-1]
    matmul, elementwise = work[full]
    return Quote(
        parameters=sum(map(math.prod, shapes.values())),
        matmul_flops_per_step=matmul,
        elementwise_flops_per_step=elementwise,
        optimizer_flops_per_step=optimizer,
        flops_per_step=price[full],
        steps=sum(part.steps for part in plan),
        flops=sum(part.steps * part.flops_per_step for part in plan),
        tokens=sum(part.steps * part.size.tokens for part in plan),
        memory_bytes=_memory_bytes(genome, shapes, vocab_size, full),
        phases=plan,
    )


def _work(genome: Genome, vocab_size: int, size: Size) -> tuple[int, int]:
    """FLOPs of the model and the loss in one step: matrix products, and all else."""
    architecture, heads = genome.architecture, len(genome.heads)
    products = _forward_matmul_per_token(architecture, vocab_size, size.length)
    other = _elementwise_per_token(architecture, vocab_size, size.length)
    other += heads * (architecture.width * HEAD + SOFTCAP * vocab_size * (architecture.logit_softcap > 0))
    other += _objective_per_token(genome.objective.expression, vocab_size)
    return 3 * size.tokens * (products + heads * 2 * architecture.width * vocab_size), size.tokens * other


def parameter_shapes(
    architecture: Architecture, vocab_size: int, context: int, heads: tuple[int, ...] = ()
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the ``state_dict`` of the model built with these heads, in its order.

    Raises:
        InvalidGenome: for a part without a price.
    """
    blocks = block_prices(architecture, context)
    width = architecture.width
    shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (vocab_size, width)}
    if architecture.positions == "learned":
        shapes["pos_embed.W_pos"] = (context, width)
    for index, block in enumerate(blocks):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in block.shapes().items()}
    shapes |= norm_shapes("ln_final", architecture.norm, width)
    if not architecture.tie_embeddings:
        shapes["unembed.W_U"] = (width, vocab_size)
    return shapes | {f"heads.{head}.W_U": (width, vocab_size) for head in heads}


def memory_shapes(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a training by this recipe remembers of these parameters beside their values.

    Raises:
        InvalidGenome: for an optimizer without a price.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        own = recipe.optimizer != "muon" or is_muon_matrix(name)
        for what in priced(REMEMBERED, recipe.optimizer if own else "adamw", "recipe.optimizer"):
            found[f"{what}:{name}"] = () if what == "step" else shape
        if recipe.ema > 0:
            found[f"{RAW}:{name}"] = shape
    return found


def is_muon_matrix(name: str) -> bool:
    """Whether Muon updates the parameter: the matrices of blocks. Embeddings, convolutions and gains are AdamW's."""
    return name.startswith("blocks.") and name.rpartition(".")[2].startswith("W_")


def muon_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The ``[inputs, outputs]`` matrix that Muon sees: heads are laid side by side, along their own axis.

    That is the shorter one: the second of ``W_Q``, ``W_K``, ``W_V`` ``[heads, d_model, d_head]``, the first of ``W_O``
    ``[heads, d_head, d_model]``. With a single head both are as long, and the matrix is the same.
    """
    if len(shape) == 2:
        return shape[0], shape[1]
    heads, first, second = shape
    return (first, heads * second) if first >= second else (heads * first, second)


def _forward_matmul_per_token(architecture: Architecture, vocab_size: int, context: int) -> int:
    blocks = block_prices(architecture, context)
    return 2 * (architecture.width * vocab_size + sum(block.products() for block in blocks))


def _elementwise_per_token(architecture: Architecture, vocab_size: int, context: int) -> int:
    width = architecture.width
    total = width * (EMBEDDING + NORM[architecture.norm]) + SOFTCAP * vocab_size * (architecture.logit_softcap > 0)
    if architecture.positions == "learned":
        total += width * POSITIONS["learned"]
    return total + sum(block.elementwise() for block in block_prices(architecture, context))


def _objective_per_token(expression: Expression, vocab_size: int) -> int:
    """Each distinct subexpression once, as it is computed; the constraint's term on top."""
    total = CONSTRAINT * vocab_size
    for node in {node for _, node in expression.nodes()}:
        price = priced(OBJECTIVE, node.op, "objective.expression")
        total += price * (vocab_size if node.op in OVER_VOCABULARY else 1)
    return total


def _optimizer_flops(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> int:
    price = priced(OPTIMIZER, recipe.optimizer, "recipe.optimizer")
    total = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        total += size * (CLIP * (recipe.clip > 0) + EMA * (recipe.ema > 0))
        if recipe.optimizer != "muon":
            total += size * price
        elif is_muon_matrix(name):
            total += size * price + newton_schulz_flops(*muon_shape(shape))
        else:
            total += size * OPTIMIZER["adamw"]
    return total


def newton_schulz_flops(rows: int, columns: int) -> int:
    """Matrix products of Muon's orthogonalization: ``A = X X'``, ``B = bA + cAA``, ``X = aX + BX``, five times."""
    short, long = sorted((rows, columns))
    return NEWTON_SCHULZ_STEPS * (2 * short * short * long + 2 * short**3 + 2 * short * short * long)


def _memory_bytes(genome: Genome, shapes: Mapping[str, tuple[int, ...]], vocab_size: int, size: Size) -> int:
    """Saved activations: the inputs of every product and the arguments of every nonlinearity, once each."""
    architecture, recipe = genome.architecture, genome.recipe
    width, floats = architecture.width, 0
    for name, shape in shapes.items():
        own = recipe.optimizer != "muon" or is_muon_matrix(name)
        floats += math.prod(shape) * (2 + STATE[recipe.optimizer if own else "adamw"] + (recipe.ema > 0))
    vectors = sum(node.op in VECTORS for node in {node for _, node in genome.objective.expression.nodes()})
    vectors += 1 + len(genome.heads) + (architecture.logit_softcap > 0)
    blocks = block_prices(architecture, size.length)
    per_token = 2 * width + vectors * vocab_size  # the last norm; logits and what the loss makes of them
    per_token += sum(block.saved() for block in blocks)
    floats += sum(block.laid_out() for block in blocks)
    widest = max([vocab_size, *(max(block.inner, block.scores) for block in blocks)])
    return FLOAT_BYTES * (floats + size.tokens * (per_token + 2 * widest))  # two gradients in flight
