"""What a controller proposes, taken as hostile input: it becomes plain text first, and only that text is believed.

The edit that is applied is the one that the recorded text parses to, never the object that the controller handed over.
So whatever an object pretends to be, what the ledger says is what was done, and a resumed run reads the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfimprove.canonical import finite
from selfimprove.controller.proposer import Proposal
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import Edit, parse_edit
from selfimprove.genome.expression import MAX_TEXT

MAX_EDITS = 16  # edits of one proposal that are recorded: the most that any space allows
SHOWN = 200  # characters of a text that is too long to be an edit
REASON = 500  # characters of a reason
UNREADABLE = "unreadable"  # the kind of a proposal that is no edits


@dataclass(frozen=True)
class Submission:
    """One proposal as it is on record.

    Args:
        texts: the edits as text: printable ASCII, each at most ``MAX_TEXT`` characters, in their one spelling where
            they are edits.
        edits: what the texts say, as far as they say anything.
        flaw: why it may not be applied as it stands; empty where it may be tried.
    """

    texts: tuple[str, ...]
    edits: tuple[Edit, ...]
    flaw: str = ""

    @classmethod
    def of(cls, edits: Sequence[Edit]) -> Submission:
        """The submission of edits that are known to be sound."""
        return cls(tuple(map(str, edits)), tuple(edits))

    @property
    def kinds(self) -> list[str]:
        """The kinds of its edits, sorted; ``unreadable`` where there are none."""
        return sorted({edit.kind for edit in self.edits}) or [UNREADABLE]


def write(proposal: object, *, parents: int) -> dict[str, Any]:
    """A proposal as JSON that the ledger can hold, whatever it is; never raises.

    Args:
        proposal: what the controller returned where a proposal belongs.
        parents: how many parents it was asked about.

    Returns:
        ``edits``: texts; ``flaw``: why it is none, or empty; ``log_prob``, ``entropy``: finite numbers or None.
    """
    body: dict[str, Any] = {"edits": [], "flaw": "", "log_prob": None, "entropy": None}
    try:
        return body | _written(proposal, parents)
    except Exception as error:  # whatever looking at a foreign object does costs this proposal alone
        return body | {"flaw": printable(f"no proposal: {type(error).__name__}: {error}", REASON)}


def read(body: Mapping[str, Any]) -> Submission:
    """What ``write`` wrote, or the edits of a ``proposal`` record; the same on every reading."""
    flaw = str(body.get("flaw", ""))
    edits: list[Edit] = []
    spelled: list[str] = []
    for text in body["edits"]:
        try:
            edits.append(parse_edit(text))
            spelled.append(str(edits[-1]))
        except InvalidEdit as error:
            spelled.append(text)
            flaw = flaw or printable(str(error), REASON)
    return Submission(tuple(spelled), tuple(edits), flaw)


def printable(text: str, most: int) -> str:
    """``text`` in printable ASCII, unchanged where it is that already, with every other character spelled out.

    >>> printable("recipe.batch=8", 100), printable("a\\x1b[2J\\u202e", 100)
    ('recipe.batch=8', 'a\\\\x1b[2J\\\\u202e')
    """
    kept = text[: most + 1]
    if not (kept.isascii() and kept.isprintable()) or "\\" in kept:
        kept = kept.encode("unicode_escape").decode("ascii")
    return kept if len(kept) <= most else f"{kept[: most - 40]}... ({len(text)} characters)"


def _written(proposal: object, parents: int) -> dict[str, Any]:
    if not isinstance(proposal, Proposal) or not isinstance(proposal.edits, tuple):
        raise TypeError(f"{type(proposal).__name__} is not a Proposal with a tuple of edits")
    flaws = []
    if type(proposal.parent) is not int or not 0 <= proposal.parent < parents:
        flaws.append(f"parent: got {printable(repr(proposal.parent), SHOWN)}; allowed: 0 to {parents - 1}")
    if len(proposal.edits) > MAX_EDITS:
        flaws.append(f"{len(proposal.edits)} edits; no space allows more than {MAX_EDITS}")
    texts = []
    for edit in proposal.edits[:MAX_EDITS]:
        text, flaw = _text(edit)
        texts.append(text)
        flaws += [flaw] if flaw else []
    scores = {name: finite(getattr(proposal, name)) for name in ("log_prob", "entropy")}
    return {"edits": texts, "flaw": printable("; ".join(flaws), REASON), **scores}


def _text(edit: object) -> tuple[str, str]:
    """An edit's text, and why it is none."""
    if type(edit) is not Edit:
        return f"<{type(edit).__name__[:SHOWN]}>", "not an edit"
    try:
        text = str(Edit.from_json(edit.to_json()))
    except Exception as error:  # a field of a wrong type, an integer too long to print
        return f"<edit of {printable(str(edit.path), SHOWN)}>", f"{type(error).__name__}: {error}"
    if len(text) > MAX_TEXT:
        return printable(text, SHOWN), f"{len(text)} characters; allowed: {MAX_TEXT}"
    shown = printable(text, MAX_TEXT)
    return shown, "" if shown == text else "characters other than printable ASCII"
