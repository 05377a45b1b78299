"""The causal check of the halted direction: taken out after a halt token, does compliance fall; put in, does it rise?

Both interventions set the component of the stream along a direction, from the halt token on: to where plain sequences
have it (taken out), or in plain sequences to where halted ones have it (put in). Each is done at one place of the
stream at a time, and at all places at once. The control does the same at all places along random directions, which
have the spread of the plain states and no part of the halted direction: at each place the component is set as far from
where it usually is as the classes are apart. What the halted direction was set to stays in the stream, so that later
places have little left to move; each random direction is fresh and moves the states in full. So the control pushes as
far at the first place and further at later ones: it errs towards 'any push would do this'.

Not covered: that compliance falls when a direction is taken out says that it is needed, not that it is all there is.
Nor is there a control that pushes no further than the direction at later places: what both change may still be the
direction's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp import plotting
from interp.alignment import HaltDirections, halt_directions, orthogonal, unit
from interp.bench import Bench, residual_names
from interp.constraint import obeys
from interp.contrast import contrast
from interp.verdict import NotApplicable, Unreadable
from selfimprove.seeds import derive
from selfimprove.tasks.batch import HALTED
from selfimprove.tasks.halt import LATENT
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CONTROLS = 5  # random directions
SEPARABLE = 0.75  # least AUC of the best layer for the halted state to be readable as a direction; 0.5 is chance
CHUNK = 256  # sequences in one pass, which bounds memory
EVERYWHERE = "all"
Prompted = Literal["halted", "plain"]
Intervention = Literal["none", "ablate", "patch"]
Clamps = Mapping[str, tuple[Tensor, float]]  # by hook: a unit direction, and the component along it to set


@dataclass(frozen=True)
class Outcome:
    """What a model does on one set of sequences under one intervention.

    Attributes:
        prompts: ``halted`` for sequences with a halt token, ``plain`` for the same number without.
        intervention: ``ablate`` takes the direction out, ``patch`` puts it in.
        place: of the stream, or ``all``.
        control: whether the directions were random ones; the interval then is one over several of them (`together`).
        halting: sequences that answer the halted token everywhere from the halt token on, or from where one could be.
        probability: of the halted token, averaged over the same positions.
    """

    prompts: Prompted
    intervention: Intervention
    place: str
    control: bool
    halting: Proportion
    probability: float


@dataclass(frozen=True)
class Steering:
    """Two outcomes without intervention, then by intervention the places in order, all of them, and the control."""

    outcomes: tuple[Outcome, ...]

    def of(self, intervention: Intervention, place: str = EVERYWHERE, *, control: bool = False) -> Outcome:
        """The outcome of one intervention.

        Raises:
            NotApplicable: it was not tried.
        """
        known = {_called(o.intervention, o.place, o.control): o for o in self.outcomes if o.intervention != "none"}
        wanted = _called(intervention, place, control)
        if wanted not in known:
            remedy = "a control needs steer(bench, controls=1) or more; outcomes without intervention are `baseline`s"
            raise NotApplicable("outcome of an intervention", wanted, "; ".join(known), remedy)
        return known[wanted]

    def baseline(self, prompts: Prompted) -> Outcome:
        """What the model does without intervention."""
        return next(o for o in self.outcomes if (o.prompts, o.intervention) == (prompts, "none"))

    def to_pandas(self) -> pd.DataFrame:
        """One row an outcome; ``share`` with the ends of its 95 % interval."""
        import pandas

        rows = []
        for outcome in self.outcomes:
            row = {name: value for name, value in vars(outcome).items() if name != "halting"}
            rows.append(row | {"share": outcome.halting.kept / outcome.halting.n} | vars(outcome.halting))
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Share of halting sequences by outcome, with intervals."""
        names = [f"{o.prompts}, {o.intervention} {'random' if o.control else o.place}" for o in self.outcomes]
        shares = [o.halting for o in self.outcomes]
        title = "Halted direction taken out and put in"
        named = dict(zip(names, shares, strict=True))
        return plotting.intervals(
            ax, named, title=title, x="share of sequences that halt", y="prompts and intervention"
        )


def _called(intervention: str, place: str, control: bool) -> str:
    return f"{intervention} at {place}{', control' if control else ''}"


@dataclass(frozen=True)
class _Prompts:
    """Sequences, and the positions at which they halt or would."""

    tokens: Int[Tensor, "n pos"]
    after: Bool[Tensor, "n pos"]


def steer(bench: Bench, *, controls: int = CONTROLS) -> Steering:
    """Take the halted direction (the difference of class means) out, and put it in, over the test sequences.

    Args:
        bench: the model.
        controls: random directions for the control.

    Raises:
        NotApplicable: no halted position, or no position after a halt token.
        Unreadable: activations or logits that are not finite.
    """
    directions = halt_directions(bench)
    halted, plain = _prompts(bench)
    random = _random_directions(bench, directions, controls)
    outcomes = [_outcome(bench, halted, "halted", {}), _outcome(bench, plain, "plain", {})]
    plans: tuple[tuple[Intervention, Prompted, _Prompts], ...] = (
        ("ablate", "halted", halted),
        ("patch", "plain", plain),
    )
    for intervention, kind, prompts in plans:
        every = _clamps(directions, intervention, directions.unit)
        run = partial(_outcome, bench, prompts, kind)
        for place, hook in zip(bench.layers, every, strict=True):
            outcomes.append(run({hook: every[hook]}, intervention=intervention, place=place))
        outcomes.append(run(every, intervention=intervention))
        tried = [run(_clamps(directions, intervention, v), intervention=intervention) for v in random]
        if tried:
            outcomes.append(together(tried))
    return Steering(tuple(outcomes))


def _prompts(bench: Bench) -> tuple[_Prompts, _Prompts]:
    """Halted test sequences and as many plain ones of the same families, which would halt at the same positions."""
    halted, plain, after = [], [], []
    for family in bench.suite.families:
        stopped, free = bench.halted("test", family), bench.task("test", family)
        count = min(len(stopped.tokens), len(free.tokens))
        mask = stopped.latents[LATENT][:count] == 1
        kept = mask.any(-1)
        halted.append(stopped.tokens[:count][kept])
        plain.append(free.tokens[:count][kept])
        after.append(mask[kept])
    if not sum(map(len, halted)):
        raise NotApplicable("halt direction", 0, "at least one sequence with a halted position")
    return _Prompts(torch.cat(halted), torch.cat(after)), _Prompts(torch.cat(plain), torch.cat(after))


def _random_directions(bench: Bench, directions: HaltDirections, count: int) -> list[Float[Tensor, "layer d_model"]]:
    """Unit vectors with the spread of the plain states, orthogonal to the halted direction; fresh at every layer."""
    plain = contrast(bench, "train").plain
    generator = torch.Generator().manual_seed(derive(bench.plan.control, "random directions"))
    found = []
    for _ in range(count):
        weights = torch.randn(plain.shape[:2], generator=generator).to(plain)
        vector = torch.einsum("lr,lrd->ld", weights - weights.mean(1, keepdim=True), plain)
        found.append(unit(orthogonal(vector, directions.difference)))
    return found


def _clamps(directions: HaltDirections, intervention: str, along: Float[Tensor, "layer d_model"]) -> Clamps:
    """By hook, the direction whose component is set, and the value: as far from where it usually is as the classes."""
    length = directions.difference.norm(dim=-1)
    out = intervention == "ablate"
    usual = ((directions.halted_mean if out else directions.plain_mean) * along).sum(-1)
    level = usual - length if out else usual + length
    return dict(zip(residual_names(len(along) - 1), zip(along, level.tolist(), strict=True), strict=True))


def _outcome(
    bench: Bench,
    prompts: _Prompts,
    kind: Prompted,
    clamps: Clamps,
    *,
    intervention: Intervention = "none",
    place: str = EVERYWHERE,
) -> Outcome:
    kept, mass, model = 0, 0.0, bench.hooked
    for start in range(0, len(prompts.tokens), CHUNK):
        tokens, after = (part[start : start + CHUNK].to(model.W_E.device) for part in (prompts.tokens, prompts.after))
        hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]] = [
            (name, partial(_set_component, along=along, level=level, at=after))
            for name, (along, level) in clamps.items()
        ]
        with torch.no_grad():
            logits: Tensor = model.run_with_hooks(tokens, fwd_hooks=hooks)
        kept += int(obeys(logits, after).sum())
        mass += float(logits.softmax(-1)[..., HALTED][after].double().sum())
    share = Proportion.of(kept, len(prompts.tokens))
    return Outcome(kind, intervention, place, False, share, mass / int(prompts.after.sum()))


def _set_component(
    x: Float[Tensor, "n pos d_model"], hook: HookPoint, *, along: Tensor, level: float, at: Bool[Tensor, "n pos"]
) -> Float[Tensor, "n pos d_model"]:
    missing = (level - x @ along) * at
    return x + missing[..., None] * along


def together(tried: Sequence[Outcome]) -> Outcome:
    """The control: outcomes of several random directions as one.

    All are tried on the same prompts, of which some may be easier to push than others: there are no more independent
    trials than prompts. So the interval is no narrower than that of one direction with the mean count (rounded
    outwards), and wider where directions differ.
    """
    pooled = Proportion.pooled([outcome.halting for outcome in tried])
    mean, prompts = pooled.kept / len(tried), tried[0].halting.n
    least, most = Proportion.of(math.floor(mean), prompts), Proportion.of(math.ceil(mean), prompts)
    halting = replace(pooled, low=min(pooled.low, least.low), high=max(pooled.high, most.high))
    return replace(tried[0], control=True, halting=halting, probability=fmean(o.probability for o in tried))


def halt_direction(bench: Bench) -> dict[str, Any]:
    """Instrument: the halted direction by layer, and its causal check.

    Raises:
        Unreadable: the model stops when it must and only then, and no layer holds that as a direction.
        NotApplicable: as `halt_directions`.
    """
    directions, steering = halt_directions(bench), steer(bench)
    best, stops, plain = max(directions.auc), *(steering.baseline(prompts).halting for prompts in ("halted", "plain"))
    if best < SEPARABLE and 2 * stops.kept > stops.n and 2 * plain.kept < plain.n:  # what always stops hides nothing
        what = f"the direction of what stops it in {stops.kept} of {stops.n} sequences"
        raise Unreadable(what, f"AUC {best:.2f} at the best layer", f"at least {SEPARABLE:g}")
    figures: dict[str, Any] = {
        name: list(getattr(directions, name)) for name in ("auc", "d_prime", "agreement", "relative")
    }
    figures["separated"] = [vars(share) for share in directions.separated]
    for outcome in steering.outcomes:
        key = outcome.prompts if outcome.intervention == "none" else outcome.intervention
        place = "control" if outcome.control else outcome.place
        told = vars(outcome.halting) | {"probability": outcome.probability}
        if outcome.intervention == "none":
            figures[key] = told
        else:
            figures.setdefault(key, {})[place] = told
    return {"halt_direction": figures}
