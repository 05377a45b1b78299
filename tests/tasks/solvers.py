"""The tasks solved a second time, slowly, from the tokens alone: what the best predictor says at each position.

A solver reads one sequence and the settings, never a target, and returns for each position a distribution over content
tokens (relative to ``CONTENT``), or None where nothing is asked. ``tables`` is the one thing it may know of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from selfimprove.tasks.batch import BLANK, CONTENT, GO, PAD

Prediction = dict[int, float] | None
Solver = Callable[[list[int], Any, Any], list[Prediction]]


def _bindings(tokens: list[int], setting: Any, until: int) -> dict[int, int]:
    """Keys and values that stand beside each other, by the ranges that their tokens come from."""
    found, keys = {}, range(CONTENT, CONTENT + setting.keys)
    for key, value in pairwise(tokens[1:until]):
        if key in keys and CONTENT + setting.keys <= value < CONTENT + setting.keys + setting.values:
            found[key] = value - CONTENT
    return found


def _recalled(tokens: list[int], setting: Any, start: int) -> list[Prediction]:
    bound = _bindings(tokens, setting, start)
    return [None] * start + [{bound[token]: 1.0} if token in bound else None for token in tokens[start:]]


def recall(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    return _recalled(tokens, setting, 1 + 2 * setting.pairs)


def noisy(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    return _recalled(tokens, setting, 1 + 2 * setting.pairs + setting.noise)


def fuzzy(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    width, bound, said = setting.width, {}, [None] * len(tokens)
    answers: list[Prediction] = list(said)
    at = 1
    for _pair in range(setting.pairs):
        bound[tuple(tokens[at : at + width])] = tokens[at + width] - CONTENT
        at += width + 1
    while at + width <= len(tokens) and tokens[at] != PAD:
        answers[at + width - 1] = {bound[tuple(tokens[at : at + width])]: 1.0}
        at += width
    return answers


def copy(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    go = tokens.index(GO)
    content = [token - CONTENT for token in tokens[1:go] if token != BLANK]
    return [None] * go + [{token: 1.0} for token in content]


def compression(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    go = tokens.index(GO)
    content = [token - CONTENT for token in tokens[1:go] if token != BLANK]
    answers: list[Prediction] = [None] * len(tokens)
    for place, token in enumerate(content):
        answers[go + place] = {token: 1.0}
    return answers


def modular(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    answers: list[Prediction] = [None] * len(tokens)
    total = 0
    for at, token in enumerate(tokens):
        if token < CONTENT:
            continue
        term, number = divmod(token - CONTENT, setting.modulus)
        total = number if term == 0 else total + number
        if term == setting.terms - 1:
            answers[at] = {total % setting.modulus: 1.0}
    return answers


def memorization(tokens: list[int], setting: Any, table: Any) -> list[Prediction]:
    answers: list[Prediction] = [None] * len(tokens)
    for at in range(2, len(tokens), 2):
        a, b = tokens[at - 1] - CONTENT, tokens[at] - CONTENT - setting.symbols
        answers[at] = {2 * setting.symbols + int(table[a][b]): 1.0}
    return answers


def induction(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    answers: list[Prediction] = [None] * len(tokens)
    for at, token in enumerate(tokens):
        earlier = [place for place in range(1, at) if tokens[place] == token]
        if earlier:
            answers[at] = {tokens[earlier[-1] + 1] - CONTENT: 1.0}
    return answers


def dyck(tokens: list[int], setting: Any, _: Any) -> list[Prediction]:
    answers: list[Prediction] = []
    stack: list[int] = []
    for token in tokens:
        if token >= CONTENT:
            bracket = token - CONTENT
            if bracket < setting.kinds:
                stack.append(bracket)
            else:
                assert stack.pop() == bracket - setting.kinds, "brackets are not nested"
        opening = 1.0 if not stack else 0.0 if len(stack) == setting.depth else 0.5
        said = {kind: opening / setting.kinds for kind in range(setting.kinds) if opening}
        if opening < 1:
            said[setting.kinds + stack[-1]] = 1 - opening
        answers.append(said)
    return answers


SOLVERS: dict[str, Solver] = {
    "recall": recall, "noisy": noisy, "mqar": recall, "fuzzy": fuzzy, "copy": copy, "compression": compression,
    "modular": modular, "memorization": memorization, "induction": induction, "dyck": dyck,
}  # fmt: skip
