"""Do denied edits follow from a controller, and from what its stream carries? Sampled from it as the loop samples.

The grammar leaves no way to a forbidden path or beyond a cap of the space: what a model of a controller can still do is
to propose what the policy denies for its price. How often it does is counted over proposals drawn from it, with the
run's own policy as the judge. Limits that hardly bind show nothing; `ControllerGeneration.under` puts others in their
place.

Not covered: the loss screen, which trains; what is left of the budget, which is no property of a proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp import plotting
from interp.alignment import TINY, orthogonal, unit
from interp.bench import residual_names
from interp.controller import ControllerGeneration, Proposed
from interp.controller_probes import stream, upper_half
from interp.hooked import HookedModel
from interp.verdict import NotApplicable
from selfimprove.controller.grammar import GOAL, PREFIX_TOKENS
from selfimprove.controller.policy import Sample, choice_probabilities, sample
from selfimprove.controller.survey import Survey, tally
from selfimprove.genome.genome import Genome
from selfimprove.seeds import derive
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CONTROLS = 4  # random directions
Hook = tuple[str, Callable[[Tensor, HookPoint], Tensor]]


@dataclass(frozen=True)
class Denials:
    """What the policy would make of proposals drawn from a controller.

    Attributes:
        name: of the controller, the parents or the intervention.
        denied: proposals that the policy would deny, of those drawn, with the 95 % Wilson interval. Proposals that
            share a parent are not independent; with few parents the interval is too narrow.
        limits: how many passed each limit, by its name.
        larger: proposals with more parameters than their parent.
        limit_share: mean share of the limit that a proposal is nearest to.
        entropy: mean entropy of one choice, in nats.
    """

    name: str
    denied: Proportion
    limits: dict[str, int]
    larger: Proportion
    limit_share: float
    entropy: float


@dataclass(frozen=True)
class DenialTable:
    """Several of them, to compare."""

    rows: tuple[Denials, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a controller, set of parents or intervention; ``low`` and ``high`` are of the denied share."""
        import pandas

        return pandas.DataFrame(
            [
                {"name": row.name, "denied": row.denied.kept / row.denied.n, "low": row.denied.low}
                | {"high": row.denied.high, "n": row.denied.n, "larger": row.larger.kept / row.larger.n}
                | {"limit_share": row.limit_share, "entropy": row.entropy}
                for row in self.rows
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Denied share with its interval, one bar a row."""
        ax = plotting.axes(ax, title="Proposals that the policy would deny", x="", y="share of proposals drawn")
        shares = [row.denied.kept / row.denied.n for row in self.rows]
        below = [share - row.denied.low for share, row in zip(shares, self.rows, strict=True)]
        above = [row.denied.high - share for share, row in zip(shares, self.rows, strict=True)]
        ax.bar(range(len(shares)), shares, yerr=(below, above), capsize=4)
        ax.set_xticks(range(len(shares)), labels=[row.name for row in self.rows], rotation=20, ha="right")
        ax.set_xlabel("controller, parents or intervention")
        return ax


@dataclass(frozen=True)
class ProposalScores:
    """How probable a controller finds the proposals of its run, beside what became of them.

    Attributes:
        controller: generation whose weights were asked.
        proposals: what was proposed.
        log_prob: natural log of the probability of each under these weights, asked as the loop asks.
    """

    controller: int
    proposals: tuple[Proposed, ...]
    log_prob: tuple[float, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a proposal; ``said`` is the log-probability that the worker gave when it was made."""
        import pandas

        return pandas.DataFrame(
            [
                {"generation": p.generation, "index": p.index, "log_prob": value, "said": p.log_prob}
                | {"status": p.status, "reach": p.reach, "denied": p.denied, "limit": p.limit}
                | {"edits": ", ".join(map(str, p.edits))}
                for p, value in zip(self.proposals, self.log_prob, strict=True)
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Log-probabilities of denied proposals and of the others, by generation."""
        title = f"Proposals as the controller after generation {self.controller} finds them"
        ax = plotting.axes(ax, title=title, x="generation of the proposal", y="log-probability (nats)")
        pairs = list(zip(self.proposals, self.log_prob, strict=True))
        for denied, marker in ((False, "o"), (True, "x")):
            shown = [(p.generation, value) for p, value in pairs if p.denied is denied]
            if shown:
                ax.plot(*zip(*shown, strict=True), marker, label="denied" if denied else "not denied")
        ax.legend()
        return plotting.count_along_x(ax)


def score_proposals(controller: ControllerGeneration) -> ProposalScores:
    """Probability of every proposal of the run under one generation's weights.

    Raises:
        NotApplicable: the run has no proposal.
    """
    tokens = controller.tokens
    with torch.no_grad():
        logits = controller.network(tokens[:, :-1])[:, PREFIX_TOKENS - 1 :] / controller.config.temperature
    found = []
    for row, proposal in enumerate(controller.proposals):
        action = controller.grammar.encode(proposal.edits)
        walk, allowed = controller.grammar.walk(proposal.parent), []
        for token in action:
            allowed.append(walk.allowed)
            walk.step(token)
        chances = choice_probabilities(logits[row, : len(action)], allowed, controller.config.epsilon)
        found.append(float(chances[torch.arange(len(action)), action].log().sum()))
    return ProposalScores(controller.number, controller.proposals, tuple(found))


def sampled_denials(
    controller: ControllerGeneration,
    parents: Sequence[Genome],
    *,
    rows: int,
    seed: int,
    name: str = "",
    hooks: Sequence[Hook] = (),
) -> Denials:
    """Draw proposals as the loop does, and judge their genomes by the limits.

    Args:
        controller: whose policy, and whose limits.
        parents: what is edited, each as often as any other.
        rows: proposals to draw.
        seed: of the draws.
        name: of the result; the controller's generation by default.
        hooks: forward hooks of the hooked model, to change its stream while it proposes.

    Raises:
        NotApplicable: nothing could be drawn.
    """
    with controller.model.hooks(fwd_hooks=list(hooks)):
        drawn = _drawn(controller, parents, rows, seed)
    if not drawn:
        raise NotApplicable("draw proposals", "none", "parents that the space has edits of")
    decode = controller.grammar.decode
    pairs = [(parents[item.parent], decode(item.ids, parents[item.parent]).genome) for item in drawn]
    found = tally(pairs, controller.scale, controller.scale.price, controller.denied)
    return Denials(
        name or f"generation {controller.number}",
        Proportion.of(found.denied, found.n),
        found.limits,
        Proportion.of(found.larger, found.n),
        found.limit_share,
        sum(item.entropy for item in drawn) / found.n,
    )


def _drawn(controller: ControllerGeneration, parents: Sequence[Genome], rows: int, seed: int) -> list[Sample]:
    config = controller.config
    settings = {"temperature": config.temperature, "epsilon": config.epsilon}
    return sample(controller.model, controller.grammar, parents, rows=rows, seed=seed, **settings)


def ablate_quantity(
    controller: ControllerGeneration,
    survey: Survey,
    name: str,
    parents: Sequence[Genome],
    *,
    rows: int,
    seed: int,
    controls: int = CONTROLS,
) -> DenialTable:
    """Take the direction of a quantity out of the controller's stream: does it propose more that is denied?

    The direction is the difference between the class means at the last position of the prefix, one for each place in
    the stream, over the parents of a survey. It is taken out at every place and position, by setting its component to
    the mean. The control moves the stream as far at every place, along random directions that have the spread of the
    states and no part of the quantity's: what it changes, any push of this size would. Sizes are compared over all
    positions of what the controller proposes as it is, and at each place after what was done at the places before.

    Args:
        controller: whose stream is changed.
        survey: parents with their quantities, from which the directions are estimated.
        name: of the quantity.
        parents: what is edited.
        rows: proposals drawn under each intervention, and to compare sizes on.
        seed: of all draws; the same for every intervention, so that they differ by it alone.
        controls: random directions that are tried.
    """
    states = torch.tensor(stream(controller.model, torch.tensor(survey.prefixes), -1))
    upper = torch.tensor(upper_half(survey.quantities[name], len(survey.prefixes))) == 1
    mean = states.mean(1)
    found = states[:, upper].mean(1) - states[:, ~upper].mean(1)
    generator = torch.Generator().manual_seed(derive(seed, "directions"))
    draw = partial(sampled_denials, controller, parents, rows=rows, seed=derive(seed, "sample"))
    results = [draw(name="as it is"), draw(name=f"without {name}", hooks=without(found, mean))]
    reach = partial(lengths, controller.model, *_proposals(controller, parents, rows, derive(seed, "sample")))
    wanted = reach(without(found, mean))
    for number in range(controls):
        weights = torch.randn(states.shape[1], generator=generator)
        random = orthogonal(torch.einsum("r,lrd->ld", weights, states - mean[:, None]), found)
        size = torch.ones(len(random))
        for at in range(len(random)):  # in order: what is done at a place changes the states at those after it
            size[at] = wanted[at] / reach(without(random, mean, size))[at].clamp_min(TINY)
        results.append(draw(name=f"along a random direction ({number})", hooks=without(random, mean, size)))
    return DenialTable(tuple(results))


def _proposals(
    controller: ControllerGeneration, parents: Sequence[Genome], rows: int, seed: int
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """Contexts and actions as the controller draws them, padded, and where they stand; the last token is not read."""
    drawn = _drawn(controller, parents, rows, seed)
    prefixes = [controller.grammar.prefix(parents[item.parent], GOAL) for item in drawn]
    sequences = [[*prefix, *item.ids[:-1]] for prefix, item in zip(prefixes, drawn, strict=True)]
    tokens = controller.pad(sequences)
    return tokens, torch.arange(tokens.shape[1]) < torch.tensor([[len(ids)] for ids in sequences])


def lengths(
    model: HookedModel, tokens: Int[Tensor, "row pos"], there: Bool[Tensor, "row pos"], hooks: Sequence[Hook]
) -> Float[Tensor, " layer"]:
    """How far hooks move the stream at each of their places: root mean square over the positions ``there``."""
    found = []

    def measured(state: Tensor, hook: HookPoint, *, push: Callable[[Tensor, HookPoint], Tensor]) -> Tensor:
        pushed = push(state, hook)
        found.append((pushed - state)[there].square().sum(-1).mean().sqrt())
        return pushed

    with torch.no_grad(), model.hooks(fwd_hooks=[(name, partial(measured, push=push)) for name, push in hooks]):
        model(tokens)
    return torch.stack(found)


def without(
    direction: Float[Tensor, "layer d_model"],
    mean: Float[Tensor, "layer d_model"],
    size: Float[Tensor, " layer"] | None = None,
) -> list[Hook]:
    """Hooks that set the component along each place's direction to that of its mean, everywhere in the stream.

    Args:
        direction: of any length.
        mean: of the states at each place.
        size: how many times as far to go, by place; 1 by default.
    """
    axis, size = unit(direction), torch.ones(len(direction)) if size is None else size

    def flatten(state: Tensor, hook: HookPoint, *, along: Tensor, center: Tensor, times: float) -> Tensor:
        return state - times * ((state - center) @ along)[..., None] * along

    return [
        (name, partial(flatten, along=axis[at], center=mean[at], times=float(size[at])))
        for at, name in enumerate(residual_names(len(axis) - 1))
    ]
