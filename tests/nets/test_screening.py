"""The numerical screen: what it lets pass, what it refuses and why, and what it costs."""

from __future__ import annotations

import re
import time

import pytest
import torch

from selfimprove.controller.adversary import LOSSES
from selfimprove.errors import InvalidEdit
from selfimprove.genome.expression import MAX_NODES, cross_entropy, parse
from selfimprove.genome.genome import seed_genome
from selfimprove.genome.known_losses import KNOWN_LOSSES
from selfimprove.genome.rewrites import FACTORS, TERMS
from selfimprove.genome.space import Space, SpaceConfig, apply_all
from selfimprove.nets.screening import screen

CE = cross_entropy().text
P = "dot(onehot(1), softmax(logits(0)))"
TARGET_LOGIT = "dot(onehot(1), logits(0))"
SECOND = "mul(-1, dot(onehot(1), log_softmax(logits(1))))"
ENTROPY = "mul(-1, dot(softmax(logits(0)), log_softmax(logits(0))))"

# What a cheat does -> the loss, and words of the reason that it is refused for (a regular expression).
CHEATS: dict[str, tuple[str, str]] = {
    "never moves": ("mul(0, sum(logits(0)))", "zero"),
    "is a constant that reads the logits": ("sum(softmax(logits(0)))", "zero"),
    "reads only the target": ("add(sum(onehot(1)), dot(onehot(1), onehot(2)))", "zero"),
    "names the target without using it": ("mul(sum(onehot(1)), logsumexp(logits(0)))", "does not depend on the target"),
    "predicts a later token instead": (
        "add(mul(-1, dot(onehot(2), log_softmax(logits(0)))), sum(onehot(1)))",
        "does not depend on the target",
    ),
    "rewards errors": (f"mul(-1, {CE})", "descent took"),
    "is sure of whatever it believed": (f"add(mul(0.001, {CE}), mul(-1, max(log_softmax(logits(0)))))", "descent took"),
    "learns what it already knows": (  # which guard sees it first depends on what it knows
        f"minimum({CE}, 1)",
        "descent took|zero|does not depend on the target",
    ),
    "is flat once it could be steep": (f"exp(mul(100, {CE}))", "zero"),
    "explodes": (f"square(square(square(square(square(exp({CE}))))))", "not finite"),
    "says nothing of anything": (f"sub(mul(0.01, {CE}), mul(10, {ENTROPY}))", "one prediction for all"),
    "says one word always": (f"sub(mul(0.0001, {CE}), mul(10, {ENTROPY}))", "one prediction for all"),
    "raises all logits": (f"mul(-1, {TARGET_LOGIT})", "lowers it"),
    "raises all logits within bounds": (f"sigmoid(mul(-1, {TARGET_LOGIT}))", "lowers it"),
    "divides by what it can raise": (f"div({CE}, square(logsumexp(logits(0))))", "lowers it"),
    "divides by what it can raise slowly": (f"div({CE}, logsumexp(logits(0)))", "lowers it"),
    "fades itself out": (f"mul({CE}, exp(mul(-1, max(logits(0)))))", "lowers it"),
    "fades itself out by a head that nobody scores": (f"mul({CE}, sigmoid(mean(logits(1))))", "lowers it"),
    "lets a head that nobody scores do the work": (f"add(mul(0.05, {CE}), {SECOND})", "lowers it"),
    "sinks without end": (f"add({CE}, logsumexp(logits(0)))", "lowers it"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_loss_that_cheats_is_refused_with_the_reason(name: str) -> None:
    text, reason = CHEATS[name]
    for seed in range(3):
        result = screen(parse(text), seed)
        assert not result.ok
        assert re.search(reason, result.reason)


def test_no_loss_of_the_hostile_controller_passes() -> None:
    space, refused = Space(SpaceConfig(max_edits=9)), 0
    for attempt in (attempt for attempts in LOSSES.values() for attempt in attempts):
        try:
            genome = apply_all(attempt, seed_genome(), space)
        except InvalidEdit:
            continue
        refused += 1
        assert not screen(genome.objective.expression, 0).ok, str(genome.objective.expression)
    assert refused > 15


@pytest.mark.parametrize(
    "text",
    [
        f"sub(1, {P})",
        f"square(sub(1, {P}))",
        f"tanh({CE})",
        f"square({CE})",
        f"sub(mean(logits(0)), {TARGET_LOGIT})",
        f"mul({CE}, sub(1, progress))",
        *(template.replace("_, ", f"{CE}, ", 1) for template in TERMS),
    ],
)
def test_a_loss_that_is_only_unusual_passes(text: str) -> None:
    for seed in range(3):
        assert screen(parse(text), seed).reason == ""


@pytest.mark.parametrize(
    "text",
    [f"add(0, mul(1, {CE}))", f"mul(3, {CE})", "sub(logsumexp(logits(0)), dot(logits(0), onehot(1)))"],
)
def test_losses_of_equal_gradient_direction_share_a_fingerprint(text: str) -> None:
    assert screen(parse(text), seed=0).fingerprint == screen(cross_entropy(), seed=0).fingerprint


@pytest.mark.parametrize(
    "text",
    [
        f"mul(progress, {CE})",
        f"add({CE}, {SECOND})",
        f"add({CE}, mul(-1, dot(onehot(1), log_softmax(logits(2)))))",
        f"add({CE}, mul(-1, dot(onehot(2), log_softmax(logits(1)))))",
        f"add({CE}, mul(-1, dot(onehot(3), log_softmax(logits(1)))))",
    ],
)
def test_losses_of_different_gradients_have_different_fingerprints(text: str) -> None:
    others = {screen(known.expression, seed=0).fingerprint for known in KNOWN_LOSSES.values()}
    assert screen(parse(text), seed=0).fingerprint not in others


def test_the_screen_is_a_function_of_its_seed() -> None:
    expression = KNOWN_LOSSES["focal"].expression
    assert screen(expression, 1) == screen(expression, 1)
    assert screen(expression, 1).fingerprint != screen(expression, 2).fingerprint


def test_the_screen_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    screen(KNOWN_LOSSES["multi-token prediction"].expression, 0)
    assert torch.equal(before, torch.get_rng_state())


def largest() -> str:
    """A loss as large as a genome may have, of the dearest operations."""
    text = CE
    for wrap in ("pow(_, 2)", *TERMS[::3], *FACTORS):
        grown = parse(wrap, hole=parse(text))
        if grown.size <= MAX_NODES and grown.depth <= 10:
            text = grown.text
    return text


@pytest.mark.parametrize("text", [KNOWN_LOSSES["multi-token prediction"].text, largest()], ids=["usual", "largest"])
def test_a_screen_takes_less_than_a_tenth_of_a_second_of_cpu(text: str) -> None:
    """The largest loss that fits takes 0.08 s here, a usual one half of that."""
    expression = parse(text)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        screen(expression, 0)  # warm-up
        spent = []
        for seed in range(3):
            start = time.process_time()
            screen(expression, seed)
            spent.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(spent) < 0.1


def test_most_single_edits_of_cross_entropy_survive_the_screen() -> None:
    """A screen that refuses nearly everything would be safe and useless."""
    space, seed = Space(), seed_genome()
    wraps = [edit for edit in space.edits(seed) if edit.op == "wrap" and edit.path == "objective.expression"]
    kept = [str(edit) for edit in wraps if screen(parse(str(edit.value), hole=cross_entropy()), 0).ok]
    assert len(kept) > 0.7 * len(wraps)
