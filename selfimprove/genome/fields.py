"""The one table of what may be edited: path, kind, choices and bounds.

Validation, the enumeration of edits, the controller's vocabulary and the error messages all derive from ``FIELDS``.
A ``*`` in a path stands for a block index; ``objective.expression`` stands for any node of the tree, so that
``objective.expression.args.0.op`` is described by ``objective.expression.op``.

What is absent from the table cannot be edited: tasks, evaluation, seeds and limits have no path. The factor of the
constraint has one in those spaces alone that are told to offer it, so that drift can be measured.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from selfimprove.genome.expression import MAX_CONSTANT, format_number
from selfimprove.genome.operations import OPERATIONS
from selfimprove.genome.recipe import EVEN, SMALLEST_BATCH

Value = bool | int | float | str
SECTIONS = ("architecture", "objective", "recipe")


@dataclass(frozen=True)
class Field:
    """What is known of one path.

    Without bounds, ``choices`` is all that is allowed. With bounds, any number between them is allowed, and ``choices``
    is the grid that proposals are drawn from.
    """

    kind: str
    """``choice`` (of names), ``integer``, ``number``, ``flag``; ``block`` and ``expression`` for structure."""
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    ops: tuple[str, ...] = ("set",)
    """The edits that may stand at the path."""

    @property
    def limit(self) -> str:
        """What is accepted, in words."""
        if self.low is not None and self.high is not None:
            return f"{self.kind} in [{self.low:g}, {self.high:g}]"
        return ", ".join(format_value(choice) for choice in self.choices)

    def coerce(self, value: object) -> Value | None:
        """``value`` in the type of the field, or None if it is not accepted."""
        if self.kind == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
            inside = value in self.choices if self.low is None or self.high is None else self.low <= value <= self.high
            return float(value) if inside else None
        # exact types: bool is an int in Python, and a flag must not pass for a number
        if type(value) in (bool, int, str) and any(type(value) is type(choice) for choice in self.choices):
            return next((choice for choice in self.choices if choice == value), None)
        return None

    def up_to(self, largest: float) -> Field:
        """The same field without what lies above ``largest``."""
        kept = tuple(choice for choice in self.choices if not isinstance(choice, str) and choice <= largest)
        return dataclasses.replace(self, choices=kept, high=None if self.high is None else min(self.high, largest))


_FLAG = Field("flag", (False, True))

FIELDS: dict[str, Field] = {
    "architecture.width": Field("integer", (32, 48, 64, 96, 128, 192, 256, 384, 512)),
    "architecture.norm": Field("choice", ("layernorm", "rmsnorm")),
    "architecture.norm_placement": Field("choice", ("pre", "post", "sandwich")),
    "architecture.positions": Field("choice", ("rope", "learned", "alibi", "none")),
    "architecture.residual_scale": Field("choice", ("one", "depth", "learned")),
    "architecture.embedding_residual": _FLAG,
    "architecture.unet_skips": _FLAG,
    "architecture.logit_softcap": Field("number", (0.0, 5.0, 15.0, 30.0)),
    "architecture.tie_embeddings": _FLAG,
    "architecture.zero_init": _FLAG,
    "architecture.blocks.*": Field("block", low=1, high=4, ops=("insert", "remove", "swap", "copy")),
    "architecture.blocks.*.mixer": Field(
        "choice", ("attention", "sliding_attention", "linear_attention", "short_conv", "none")
    ),
    "architecture.blocks.*.heads": Field("integer", (1, 2, 4, 8)),
    "architecture.blocks.*.kv_heads": Field("integer", (0, 1, 2, 4)),
    "architecture.blocks.*.head_size": Field("integer", (0, 8, 16, 32, 64)),
    "architecture.blocks.*.window": Field("integer", (2, 4, 8, 16, 32, 64)),
    "architecture.blocks.*.qk_norm": _FLAG,
    "architecture.blocks.*.gate": Field("choice", ("none", "head", "channel")),
    "architecture.blocks.*.conv_qkv": _FLAG,
    "architecture.blocks.*.token_shift": _FLAG,
    "architecture.blocks.*.value_residual": _FLAG,
    "architecture.blocks.*.channel": Field(
        "choice", ("relu", "gelu", "silu", "relu2", "swiglu", "geglu", "moe", "none")
    ),
    "architecture.blocks.*.mlp_ratio": Field("number", (1.0, 2.0, 3.0, 4.0, 6.0)),
    "architecture.blocks.*.parallel": _FLAG,
    "objective.expression": Field("expression", ops=("wrap", "remove", "swap")),
    "objective.expression.op": Field("choice", tuple(op for op in OPERATIONS if OPERATIONS[op].arguments)),
    "objective.expression.value": Field(
        "number",
        (-1.0, -0.1, 0.0001, 0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0),
        low=-MAX_CONSTANT,
        high=MAX_CONSTANT,
    ),
    "objective.expression.index": Field(
        "integer", tuple(sorted({index for signature in OPERATIONS.values() for index in signature.indices}))
    ),
    "recipe.optimizer": Field("choice", ("adamw", "lion", "muon", "sgd")),
    "recipe.learning_rate": Field(
        "number", (1e-4, 2e-4, 3e-4, 6e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1e-2, 3e-2), low=1e-5, high=1e-1
    ),
    "recipe.schedule": Field("choice", ("constant", "cosine", "linear", "wsd")),
    "recipe.warmup": Field("number", (0.0, 0.02, 0.05, 0.1, 0.2), low=0, high=0.5),
    "recipe.cooldown": Field("number", (0.1, 0.2, 0.3, 0.5, 0.7), low=0.05, high=0.95),
    "recipe.weight_decay": Field("number", (0.0, 0.01, 0.03, 0.1, 0.3), low=0, high=1),
    "recipe.beta1": Field("number", (0.8, 0.9, 0.95, 0.98), low=0.5, high=0.999),
    "recipe.beta2": Field("number", (0.9, 0.95, 0.98, 0.99, 0.999), low=0.5, high=0.9999),
    "recipe.clip": Field("number", (0.0, 0.3, 1.0, 3.0), low=0, high=100),
    "recipe.ema": Field("number", (0.0, 0.8, 0.9, 0.95, 0.98, 0.99), low=0, high=0.9999),
    "recipe.init_scale": Field("number", (0.3, 0.5, 1.0, 1.5, 2.0, 3.0), low=0.05, high=10),
    "recipe.batch": Field("integer", tuple(SMALLEST_BATCH * 2**doublings for doublings in range(7))),
    "recipe.batch_start": Field("number", (0.125, 0.25, 0.5, 1.0)),
    "recipe.context": Field("number", (0.5, 0.75, 1.0)),
    "recipe.context_start": Field("number", (0.5, 1.0)),
    "recipe.mixture": Field("choice", (EVEN,)),  # and the task families that the space names
    "recipe.mixture_weight": Field("integer", (2, 4, 8)),
    "recipe.constraint_factor": Field("number", (0.0, 0.25, 0.5, 1.0, 2.0)),
}

CONSTRAINT = "recipe.constraint_factor"
"""The one path that is outside every space that is not told to offer it."""

ALLOCATING = (
    "architecture.width",
    "recipe.batch",
    "recipe.batch_start",
    "recipe.context",
    "recipe.context_start",
)
"""Set here, an edit moves the fixed FLOP allowance between width, batch, context and steps."""

_NODE = re.compile(r"^(objective\.expression)(?:\.args\.\d+)*", re.ASCII)  # \d would also take other scripts' digits
_INDEX = re.compile(r"\.(?:0|[1-9]\d{0,3})(?=\.|$)", re.ASCII)


def pattern(path: str) -> str:
    """The key of ``FIELDS`` that would describe ``path``.

    >>> pattern("architecture.blocks.1.mixer"), pattern("objective.expression.args.0.args.1.op")
    ('architecture.blocks.*.mixer', 'objective.expression.op')
    """
    return _INDEX.sub(".*", _NODE.sub(r"\1", path))


def format_value(value: object) -> str:
    """Text of a value as it stands in an edit: ``true``, ``0.003``, ``swiglu``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return format_number(value) if isinstance(value, (int, float)) else str(value)
