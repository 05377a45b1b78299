"""The language of edits: token ids, and which token may follow which. Imports no torch.

A sequence is ``<bos> <outcome> description (edit <and>)* edit <eos>``. The outcome is what the controller
is asked for (or, in training, what happened); the description is a fixed number of slots for the parent's choices. What
follows is the *action*, and only it is sampled and scored. An edit is spelled path, operation, value. A path outside
the loss is one token, so that a model without any preference chooses evenly between the places that can be edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from selfimprove.controller.proposer import Outcome
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import Edit, apply
from selfimprove.genome.genome import Genome
from selfimprove.genome.paths import path_tokens, value_at
from selfimprove.genome.space import Space

LABELS: tuple[Outcome, ...] = ("denied", "invalid", "duplicate", "failed", "worse", "same", "better")
GOAL: Outcome = "better"  # 'promoted' is read as 'better': a token of its own would see one example a generation
DESCRIBED = (
    "architecture.width",
    "architecture.norm",
    "architecture.positions",
    "architecture.blocks.0.mixer",
    "architecture.blocks.0.conv_qkv",
    "architecture.blocks.0.channel",
    "architecture.blocks.1.mixer",
    "architecture.blocks.1.conv_qkv",
    "architecture.blocks.1.channel",
    "recipe.optimizer",
    "recipe.learning_rate",
    "recipe.schedule",
    "recipe.batch",
)
PREFIX_TOKENS = 2 + len(DESCRIBED)
MAX_EDIT_TOKENS = 8


@dataclass
class Node:
    """A place in the trie; ``edit`` is set where the tokens so far spell a whole edit."""

    children: dict[int, Node] = field(default_factory=dict)
    edit: Edit | None = None


def edits_after(space: Space, genome: Genome, done: Sequence[Edit]) -> tuple[Edit, ...]:
    """Valid edits of ``genome``, which ``done`` led to. What was set is not set again: that would undo it."""
    settled = {edit.path for edit in done if edit.op == "set"}
    return tuple(edit for edit in _edits(space, genome) if edit.op != "set" or edit.path not in settled)


@lru_cache(maxsize=64)  # listing takes milliseconds, and every draw of one parent starts from the same list
def _edits(space: Space, genome: Genome) -> tuple[Edit, ...]:
    return space.edits(genome)


class Grammar:
    """Token ids of a space, and the sequences over them that are valid.

    ``len(grammar)`` is the controller's vocabulary size and ``grammar.context`` its context.

    Raises:
        ValueError: the space's vocabulary repeats a token or clashes with the tokens that are added here.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        special = ("<pad>", "<bos>", "<eos>", "<and>")
        labels = tuple(f"<{label}>" for label in LABELS)
        self.tokens = (*special, *labels, *space.vocabulary())
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            repeated = sorted({token for token in self.tokens if self.tokens.count(token) > 1})
            raise ValueError(f"vocabulary: tokens must be unique; repeated: {', '.join(repeated)}")
        self.pad, self.bos, self.eos, self.also = (self.ids[token] for token in special)
        self.max_edits = space.config.max_edits
        self.action_tokens = self.max_edits * (MAX_EDIT_TOKENS + 1)  # edit, <and> or <eos>
        self.context = PREFIX_TOKENS + self.action_tokens
        self._roots: dict[Genome, Node] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def prefix(self, parent: Genome, outcome: Outcome) -> list[int]:
        """``<bos> <outcome> description``: always ``PREFIX_TOKENS`` ids.

        A slot is ``<pad>`` where the parent has no such block or its value is not one that an edit can set.
        """
        slots = [self._described(parent, path) for path in DESCRIBED]
        return [self.bos, self.ids[f"<{outcome}>"], *slots]

    def encode(self, edits: Sequence[Edit]) -> list[int]:
        """Ids of an action, from its first path to ``<eos>``.

        Raises:
            InvalidEdit: a token is not in the vocabulary, or there are too many.
        """
        ids: list[int] = []
        for position, edit in enumerate(edits):
            ids += [self.also] if position else []
            ids += self._spell(edit)
        ids.append(self.eos)
        if not edits or len(ids) > self.action_tokens:
            raise InvalidEdit("encode edits", [str(edit) for edit in edits], f"1 to {self.max_edits} edits")
        return ids

    def walk(self, parent: Genome) -> Walk:
        """Start a sequence of edits of ``parent``."""
        return Walk(self, parent)

    def decode(self, ids: Sequence[int], parent: Genome) -> Walk:
        """Follow the ids of an action, trusting nothing.

        Returns:
            The finished walk: its ``edits`` and the ``genome`` they lead to.

        Raises:
            InvalidEdit: not a sequence of ints that leads to ``<eos>`` through valid edits only.
        """
        if len(ids) > self.action_tokens:
            raise InvalidEdit("decode edits", f"{len(ids)} tokens", f"at most {self.action_tokens}")
        walk = self.walk(parent)
        for token in ids:
            walk.step(token)
        if not walk.finished:
            raise InvalidEdit("decode edits", list(ids), "a sequence that ends with <eos>")
        return walk

    def choices(self, ids: Sequence[int], parent: Genome) -> list[tuple[int, ...]]:
        """What could have stood in the place of each id of an action.

        Raises:
            InvalidEdit: as ``decode``.
        """
        walk, allowed = self.walk(parent), []
        for token in ids:
            allowed.append(walk.allowed)
            walk.step(token)
        if not walk.finished:
            raise InvalidEdit("read an action", list(ids), "a sequence that ends with <eos>")
        return allowed

    def trie(self, genome: Genome, done: Sequence[Edit] = ()) -> Node:
        """All valid edits of ``genome`` (which ``done`` led to), spelled as tokens."""
        if not done and genome in self._roots:
            return self._roots[genome]
        root = Node()
        for edit in edits_after(self.space, genome, done):
            node = root
            for token in self._spell(edit):
                node = node.children.setdefault(token, Node())
            if node.edit is not None:
                raise ValueError(f"tokens of {edit} and {node.edit} are the same")
            node.edit = edit
        if not done:
            self._roots[genome] = root
        return root

    def _spell(self, edit: Edit) -> list[int]:
        operation, *rest = edit.tokens()
        path = len(path_tokens(edit.path))
        tokens = (*rest[:path], operation, *rest[path:])
        if len(tokens) > MAX_EDIT_TOKENS or any(token not in self.ids for token in tokens):
            raise InvalidEdit(f"spell {edit}", tokens, f"1 to {MAX_EDIT_TOKENS} tokens of the space's vocabulary")
        return [self.ids[token] for token in tokens]

    def _described(self, parent: Genome, path: str) -> int:
        try:
            value = value_at(parent, path)
        except InvalidEdit:  # no such block
            return self.pad
        return self.ids.get(Edit("set", path, value).tokens()[-1], self.pad)


class Walk:
    """A position in the valid sequences of one parent.

    Attributes:
        edits: the edits completed so far.
        genome: what they lead to.
        finished: whether ``<eos>`` was reached.
        allowed: ids that may come next, ascending; empty at the end, or in a genome without further edits.
    """

    def __init__(self, grammar: Grammar, parent: Genome) -> None:
        self._grammar = grammar
        self._node = grammar.trie(parent)
        self.genome = parent
        self.edits: tuple[Edit, ...] = ()
        self.finished = False
        self.allowed = self._allowed()

    def step(self, token: int) -> None:
        """Take one of the ``allowed`` tokens.

        Raises:
            InvalidEdit: any other token, or anything that is not an int.
        """
        if type(token) is not int or token not in self.allowed:
            names = ", ".join(self._grammar.tokens[index] for index in self.allowed)
            raise InvalidEdit(f"token after {len(self.edits)} edits", token, names or "nothing: it has ended")
        if token in self._node.children:
            self._node = self._node.children[token]
        else:
            self._complete(token)
        self.allowed = self._allowed()

    def _complete(self, token: int) -> None:
        edit = self._node.edit
        assert edit is not None  # only then are <and> and <eos> allowed
        self.genome = apply(edit, self.genome, self._grammar.space)
        self.edits = (*self.edits, edit)
        self.finished = token == self._grammar.eos
        self._node = Node() if self.finished else self._grammar.trie(self.genome, self.edits)

    def _allowed(self) -> tuple[int, ...]:
        if self.finished:
            return ()
        ends: tuple[int, ...] = ()
        if self._node.edit is not None:
            more = len(self.edits) + 1 < self._grammar.max_edits
            ends = (self._grammar.eos, self._grammar.also) if more else (self._grammar.eos,)
        return tuple(sorted((*ends, *self._node.children)))
