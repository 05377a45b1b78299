"""Whether a family of one's own keeps its promises: a few sequences of a level are drawn, and drawn again.

The shipped families are held to them by ``tests/tasks``.
"""

from __future__ import annotations

import math

import numpy as np

from selfimprove.errors import ConfigError, SelfImproveError
from selfimprove.seeds import derive
from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, IntArray
from selfimprove.tasks.family import Family, Setting, Stream
from selfimprove.tasks.score import Scale

GATE, TRAIN = 512, 5000  # sequences that are drawn
MOST_SEEN = 0.05  # share of the gate's that occur among those of training; of 100,000 equally likely ones so many
MOST_UNSTATED = 0.25  # skill of a uniform guess over the answers that occur; text has 0.19, no shipped family more
MOST_CONSTANT = 0.6  # skill of the best answer that never changes; text has 0.54, the other shipped families under 0.05


def check(family: Family, level: int, context: int) -> None:
    """Draw from a family at a level.

    Args:
        family: one of one's own.
        level: of its ladder.
        context: tokens of a sequence.

    Raises:
        ConfigError: what it draws does not depend on the stream alone, has not the form of a batch, or is not what
            the setting and the latents state; an answer that never changes has skill; or training would see what the
            gate asks.
    """
    setting, operation = family.setting(level), f"draw from the family {family.name} at level {level}"
    try:
        gate, again, train = (
            setting.generate(_stream(split), count, context)
            for split, count in (("gate", GATE), ("gate", GATE), ("train", TRAIN))
        )
        scale = setting.scale(context)
    except SelfImproveError:
        raise
    except Exception as error:  # of its own code
        limit = "sequences, and a scale with something between a guess and the floor"
        raise ConfigError(operation, f"{type(error).__name__}: {error}", limit, "correct it") from error
    for batch, count in ((gate, GATE), (again, GATE), (train, TRAIN)):
        _check_form(batch, family, (count, context), operation)
        _check_content(batch, setting, operation)
    if not all(np.array_equal(one, other) for one, other in zip(_arrays(gate), _arrays(again), strict=True)):
        limit = "the same sequences of the same stream"
        raise ConfigError(operation, "different ones", limit, "draw from stream.rng and from nothing else")
    _check_guesses(train, scale, operation)
    known = {row.tobytes() for row in train.tokens}
    seen = sum(row.tobytes() in known for row in gate.tokens) / GATE
    if seen > MOST_SEEN:
        limit = f"at most {MOST_SEEN:.0%} of {GATE} sequences of the gate among {TRAIN:,} of training"
        remedy = "let this setting have 100,000 different sequences or more: longer ones, or more symbols"
        raise ConfigError(operation, f"{seen:.0%} that training has seen", limit, remedy)


def _stream(split: str) -> Stream:
    return Stream(np.random.Generator(np.random.PCG64(derive(0, "promises", split))), split, table=0)


def _arrays(batch: Batch) -> list[IntArray]:
    """Everything that is in a batch, in a fixed order."""
    source = [] if batch.source is None else [batch.source]
    return [batch.tokens, batch.targets, *source, *(batch.latents[name] for name in sorted(batch.latents))]


def _check_form(batch: object, family: Family, shape: tuple[int, int], operation: str) -> None:
    """Whole numbers ``[n, pos]`` throughout, and the latents and the source that the family states."""
    if not isinstance(batch, Batch) or not isinstance(batch.latents, dict):
        raise ConfigError(operation, type(batch).__name__, "a Batch with a dict of latents", "return one")
    found, stated = (", ".join(sorted(names)) for names in (batch.latents, (one.name for one in family.latents)))
    if found != stated:
        limit = f"those of Family.latents: {stated or 'none'}"
        raise ConfigError(operation, f"the latents {found or 'none'}", limit, "make them equal")
    if (batch.source is not None) != family.planted:
        found = "no source" if batch.source is None else "a source"
        raise ConfigError(operation, found, f"one if planted=True; it is {family.planted}", "change one of the two")
    parts: dict[str, object] = {"tokens": batch.tokens, "targets": batch.targets, **batch.latents}
    for name, values in (parts if batch.source is None else parts | {"source": batch.source}).items():
        if not isinstance(values, np.ndarray):
            found = type(values).__name__
        elif values.dtype != np.int64 or values.shape != shape:
            found = f"{values.dtype} of shape {values.shape}"
        else:
            continue
        raise ConfigError(operation, f"{name} as {found}", f"an array of int64 of shape {shape}", "return such a one")


def _check_content(batch: Batch, setting: Setting, operation: str) -> None:
    """Tokens and answers are in the range, and not more of them, than the setting states."""
    end, asked = CONTENT + setting.tokens, batch.targets[batch.targets != UNSCORED]
    for name, values in (("token", batch.tokens), ("target", asked)):
        if outside := [int(one) for one in (values.min(initial=0), values.max(initial=0)) if not 0 <= one < end]:
            limit = f"0 to {end - 1}: CONTENT = {CONTENT}, and Setting.tokens = {setting.tokens} from there on"
            raise ConfigError(operation, f"the {name} {outside[0]}", limit, "correct one of the two")
    if not len(asked):
        raise ConfigError(operation, "no position that is scored", "one or more", "put right answers into targets")
    if (found := len(np.unique(asked))) > setting.answers:
        limit = f"Setting.answers = {setting.answers}"
        raise ConfigError(operation, f"{found} different answers", limit, "count them all")


def _check_guesses(batch: Batch, scale: Scale, operation: str) -> None:
    """Whoever looks at no token has little skill."""
    shares = np.unique(batch.targets[batch.targets != UNSCORED], return_counts=True)[1]
    shares = shares / shares.sum()
    for guess, cross_entropy, most in (
        (f"a uniform guess over the {len(shares)} answers that occur", math.log(len(shares)), MOST_UNSTATED),
        ("an answer that never changes", float(-(shares * np.log(shares)).sum()), MOST_CONSTANT),
    ):
        if (skill := scale.skill(cross_entropy)) > most:
            limit = f"at most {most}, where Setting.answers = {scale.answers}"
            remedy = "state the answers that occur, and draw them about equally often"
            raise ConfigError(operation, f"skill {skill:.2f} of {guess}", limit, remedy)
