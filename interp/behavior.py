"""What a model does on halt prompts that it was trained on and on others, and on prompts that are no halt prompts.

============== ============= ======== =================================================================================
condition      distribution  measure  prompts
============== ============= ======== =================================================================================
trained        in            kept     the halt token from the second position to the last but a few, as in training
early          out           kept     at the very first position, in place of the task's tag
late           out           kept     at the last few positions
repeated       out           kept     a second halt token after the first
short          out           kept     of sequences as short as the task allows
long           out           kept     of sequences twice as long as those of training
unseen_tasks   out           kept     of the families that are held out of the search
plain          in            false    sequences without a halt token
nearest_token  out           false    the token whose embedding is nearest to the halt token's, in its place
any_token      out           false    other tokens of the vocabulary in its place: all, if there are as many prompts
============== ============= ======== =================================================================================

*Kept* counts sequences that answer the halted token everywhere from the halt token on; *false* counts sequences that
answer it anywhere an answer was asked for (elsewhere training asks for nothing, and the answer means nothing).

Not covered: prompts that were searched for because they break the constraint; what is drawn at random only bounds the
rate on what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import plotting
from interp.alignment import cosines
from interp.bench import Bench
from interp.constraint import obeys, require_finite
from interp.verdict import NotApplicable
from selfimprove.nets.transformer import Transformer, build
from selfimprove.seeds import derive
from selfimprove.tasks import halt_variants
from selfimprove.tasks.batch import HALT, HALTED, UNSCORED, Batch, IntArray
from selfimprove.tasks.halt import LATENT
from selfimprove.tasks.score import Proportion
from selfimprove.tasks.suite import TasksConfig, TaskSuite, least_context

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CHUNK_TOKENS = 8192  # in one pass, which bounds memory
LONGER = 2  # times the training's sequences
Distribution = Literal["in", "out"]
Measure = Literal["kept", "false"]


@dataclass(frozen=True)
class Condition:
    """One kind of prompts.

    Attributes:
        name: of the condition.
        distribution: ``in`` for prompts as in training.
        measure: what is counted: constraint ``kept``, or ``false`` halts.
        share: sequences counted, with the 95 % Wilson interval; the sequence is the unit. None where it does not apply.
        reason: why it does not apply, or an empty string.
    """

    name: str
    distribution: Distribution
    measure: Measure
    share: Proportion | None
    reason: str = ""


@dataclass(frozen=True)
class HaltBehavior:
    """All conditions, and the token that came nearest.

    Attributes:
        conditions: in the order of the table above.
        nearest: the token whose embedding is nearest to the halt token's.
        cosine: between the two embeddings: near 0 in a model that keeps the halt token apart.
    """

    conditions: tuple[Condition, ...]
    nearest: int
    cosine: float

    def of(self, name: str) -> Condition:
        """A condition by name.

        Raises:
            NotApplicable: there is none of this name.
        """
        known = {condition.name: condition for condition in self.conditions}
        if name not in known:
            raise NotApplicable("condition of the halt behavior", name, ", ".join(known), "choose one of these")
        return known[name]

    @property
    def worst(self) -> Condition:
        """Of the conditions in which the constraint is to be kept, the one with the lowest lower end."""
        read = [c for c in self.conditions if c.measure == "kept" and c.share is not None]
        return min(read, key=lambda c: 0.0 if c.share is None else c.share.low)

    def to_pandas(self) -> pd.DataFrame:
        """One row a condition; the share is missing where a condition does not apply."""
        import pandas

        rows = []
        for c in self.conditions:
            row = {"condition": c.name, "distribution": c.distribution, "measure": c.measure, "reason": c.reason}
            rows.append(row | ({} if c.share is None else {"share": c.share.kept / c.share.n} | vars(c.share)))
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Shares with their intervals, one row a condition."""
        shares = {f"{c.name}: {'kept' if c.measure == 'kept' else 'false halts'}": c.share for c in self.conditions}
        title = "Behavior on halt prompts and on others"
        return plotting.intervals(ax, shares, title=title, x="share of sequences", y="prompts: what is counted")


def halt_behavior_of(bench: Bench) -> HaltBehavior:
    """Read all conditions on test sequences of every family.

    Raises:
        Unreadable: logits that are not finite.
    """
    nearest, cosine = nearest_token(bench.hooked.W_E)
    others = np.array([token for token in range(bench.model.cfg.d_vocab) if token != HALT])
    variant = halt_variants
    table: tuple[tuple[str, Distribution, Measure, Callable[[], Proportion]], ...] = (
        ("trained", "in", "kept", lambda: _share(_trained(bench))),
        ("early", "out", "kept", lambda: _variant(bench, "early", lambda batch, rng: variant.early(batch))),
        ("late", "out", "kept", lambda: _variant(bench, "late", lambda batch, rng: variant.late(batch))),
        ("repeated", "out", "kept", lambda: _variant(bench, "repeated", variant.repeated)),
        ("short", "out", "kept", lambda: _short(bench)),
        ("long", "out", "kept", lambda: _long(bench)),
        ("unseen_tasks", "out", "kept", lambda: _unseen(bench)),
        ("plain", "in", "false", lambda: _plain(bench)),
        ("nearest_token", "out", "false", lambda: _misses(bench, "nearest", np.array([nearest]))),
        ("any_token", "out", "false", lambda: _misses(bench, "any", others)),
    )
    return HaltBehavior(tuple(_condition(*row) for row in table), nearest, cosine)


def _condition(name: str, distribution: Distribution, measure: Measure, read: Callable[[], Proportion]) -> Condition:
    try:
        return Condition(name, distribution, measure, read())
    except NotApplicable as error:
        return Condition(name, distribution, measure, None, str(error))


def nearest_token(embedding: Float[Tensor, "vocab d_model"]) -> tuple[int, float]:
    """The token, other than the halt token, whose embedding has the largest cosine with the halt token's, and that."""
    found = cosines(embedding, embedding[HALT].expand_as(embedding)).detach().clone()
    found[HALT] = -2.0
    token = int(found.argmax())
    return token, float(found[token])


def lengthened(model: Transformer, context: int) -> Transformer:
    """A copy of the model that takes sequences of ``context`` tokens.

    Raises:
        NotApplicable: learned positions, of which there are no more than the model was trained with.
    """
    if model.learned_positions:
        raise NotApplicable("halt prompts longer than in training", "learned positions", "positions that go on")
    heads = tuple(int(head) for head in model.heads)
    longer = build(model.architecture, vocab_size=model.cfg.d_vocab, context=context, seed=0, heads=heads)
    longer.load_state_dict(model.state_dict())
    return longer.to(model.W_E.device).eval()


def _logits(model: Transformer, tokens: Int[Tensor, "n pos"]) -> Iterable[tuple[slice, Tensor]]:
    """The model's logits a few sequences at a time, with the rows that they are of."""
    rows = max(1, CHUNK_TOKENS // tokens.shape[1])
    for start in range(0, len(tokens), rows):
        part = slice(start, start + rows)
        with torch.no_grad():
            yield part, model(tokens[part].to(model.W_E.device))


def _cut(model: Transformer, values: IntArray) -> Int[Tensor, "n pos"]:
    """As much of the sequences as the model can take: what it makes of their beginning is the same either way."""
    return torch.tensor(np.asarray(values)[:, : model.cfg.n_ctx])


def _kept(model: Transformer, batches: Iterable[Batch]) -> tuple[int, int]:
    kept = n = 0
    for batch in batches:
        halted = _cut(model, batch.latents[LATENT]) == 1
        for part, logits in _logits(model, _cut(model, batch.tokens)):
            holds = obeys(logits, halted[part])
            kept, n = kept + int(holds.sum()), n + len(holds)
    return kept, n


def _share(counted: tuple[int, int]) -> Proportion:
    if not counted[1]:
        raise NotApplicable("halt prompts", 0, "at least one sequence that asks for something")
    return Proportion.of(*counted)


def _trained(bench: Bench) -> tuple[int, int]:
    kept = n = 0
    for family in bench.suite.families:
        reading = bench.halted("test", family)
        holds = obeys(reading.logits, reading.latents[LATENT] == 1)
        kept, n = kept + int(holds.sum()), n + len(holds)
    return kept, n


def _fresh(bench: Bench, family: str, purpose: str) -> tuple[Batch, np.random.Generator]:
    """Plain sequences of a family, and what places tokens in them: both are this condition's own."""
    seed = derive(bench.plan.test, "behavior", purpose, family)
    batch = bench.suite.batch(bench.plan.split, family, bench.plan.test_sequences, seed)
    return batch, np.random.default_rng(derive(seed, "places"))


def _variant(bench: Bench, name: str, make: Callable[[Batch, np.random.Generator], Batch]) -> Proportion:
    batches = (make(*_fresh(bench, family, name)) for family in bench.suite.families)
    return _share(_kept(bench.hooked, batches))


def _config(bench: Bench) -> TasksConfig:
    if not isinstance(bench.suite, TaskSuite):
        raise NotApplicable("halt prompts of other tasks", type(bench.suite).__name__, "a suite with a configuration")
    return bench.suite.config


def _prompts(bench: Bench, config: TasksConfig, family: str, purpose: str) -> Batch:
    """Halt prompts of a family in another configuration."""
    seed = derive(bench.plan.test, "behavior", purpose, family)
    return TaskSuite(config).halt_batch(bench.plan.split, family, bench.plan.test_sequences, seed)


def _short(bench: Bench) -> Proportion:
    config, batches = _config(bench), []
    for family in config.families:
        context = least_context(config.setting(family))
        if context < min(config.context, bench.model.cfg.n_ctx):
            alone = replace(config, families=(family,), held_out=(), context=context)
            batches.append(_prompts(bench, alone, family, "short"))
    if not batches:
        raise NotApplicable("shorter halt prompts", config.context, "sequences that could be shorter")
    return _share(_kept(bench.hooked, batches))


def _long(bench: Bench) -> Proportion:
    config = _config(bench)
    longer = replace(config, context=LONGER * config.context)
    batches = (_prompts(bench, longer, family, "long") for family in config.families)
    return _share(_kept(lengthened(bench.model, longer.context), batches))


def _unseen(bench: Bench) -> Proportion:
    config = _config(bench)
    if not config.held_out:
        raise NotApplicable("halt prompts of unseen tasks", "no family", "families that are held out")
    batches = (_prompts(bench, config.exam(), family, "unseen") for family in config.held_out)
    return _share(_kept(bench.hooked, batches))


def _false(logits: Tensor, asked: Tensor) -> tuple[int, int]:
    """Sequences that answer the halted token where another answer is asked for, and sequences that are asked.

    Raises:
        Unreadable: logits that are not finite.
    """
    require_finite("false halts", logits)
    asked = asked.to(logits.device)
    wrong = ((logits.argmax(-1) == HALTED) & asked).any(-1)
    return int(wrong.sum()), int(asked.any(-1).sum())


def _plain(bench: Bench) -> Proportion:
    readings = [bench.task("test", family) for family in bench.suite.families]
    counted = [_false(reading.logits, reading.targets != UNSCORED) for reading in readings]
    return _share((sum(wrong for wrong, _ in counted), sum(n for _, n in counted)))


def _misses(bench: Bench, name: str, others: IntArray) -> Proportion:
    model, wrong, n = bench.hooked, 0, 0
    for family in bench.suite.families:
        batch = halt_variants.near_miss(*_fresh(bench, family, name), others)
        after = _cut(model, batch.latents[halt_variants.NEAR_MISS]) == 1
        asked = after & (_cut(model, batch.targets) != UNSCORED)
        for part, logits in _logits(model, _cut(model, batch.tokens)):
            found = _false(logits, asked[part])
            wrong, n = wrong + found[0], n + found[1]
    return _share((wrong, n))


def halt_behavior(bench: Bench) -> dict[str, Any]:
    """Instrument: behavior on halt prompts in and out of distribution."""
    found = halt_behavior_of(bench)
    told = {
        c.name: {"distribution": c.distribution, "measure": c.measure, **vars(c.share)}
        for c in found.conditions
        if c.share is not None
    }
    return {
        "halt_behavior": told,
        "halt_behavior_skipped": {c.name: c.reason for c in found.conditions if c.share is None},
        "nearest_token": {"token": found.nearest, "cosine": found.cosine},
    }
