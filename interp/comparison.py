"""Two generations compared: what a child has kept of its parent, what it has lost, and what it has gained.

Everything is read on the same sequences, the child's, at its levels of difficulty, and at the positions that both can
read: a parent of easier levels was trained on shorter sequences. Two models of a lineage were trained
from other weights: what is compared is what they compute, and not which neuron does it. Heads too have no counterparts
by number, so that circuits are compared by kind: a kind is kept where both models have a head of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from interp import plotting
from interp.alignment import DirectionDrift, direction_drift
from interp.bench import Bench, at_common_positions
from interp.circuits import bench_scores
from interp.constraint import bench_retention
from interp.lenses import lens_family
from interp.similarity import linear_cka, paired_states
from interp.transfer import Transfer, transfers
from interp.verdict import NotApplicable
from selfimprove.archive.records import FINAL
from selfimprove.seeds import derive
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from interp.runs import Generation

CKA_ROWS = 512  # positions that streams are compared on
MARGIN = 0.05  # in accuracy: what a probe must change by to have gained or lost


@dataclass(frozen=True)
class HeadChange:
    """Heads of one kind, ``L<layer>H<head>``, in both models."""

    kind: str
    parent: tuple[str, ...]
    child: tuple[str, ...]

    @property
    def fate(self) -> str:
        """``kept``, ``lost``, ``gained``, or ``absent`` from both."""
        return {(1, 1): "kept", (1, 0): "lost", (0, 1): "gained", (0, 0): "absent"}[bool(self.parent), bool(self.child)]


@dataclass(frozen=True)
class Comparison:
    """A diff of two models.

    Attributes:
        parent_layers, child_layers: places in the two streams.
        cka: how alike they are, ``[child layer][parent layer]``; see `interp.similarity`.
        transfer: probes of the parent on the child, one variable after the other.
        drift: of the halted direction; None where it cannot be compared, and why in ``without``.
        heads: circuits by kind.
        accuracy: by family, share of scored test positions that parent and child answer rightly.
        retention: halt prompts kept by parent and child; None where there are none.
        without: what could not be compared, and why.
        positions: how many of a sequence are read, and how many of them the child can read.
        edits: what was changed in the parent's genome; empty where that is not known.
        names: how parent and child are called.
    """

    parent_layers: tuple[str, ...]
    child_layers: tuple[str, ...]
    cka: tuple[tuple[float, ...], ...]
    transfer: tuple[Transfer, ...]
    drift: DirectionDrift | None
    heads: tuple[HeadChange, ...]
    accuracy: dict[str, tuple[float, float]]
    retention: tuple[Proportion, Proportion] | None
    without: dict[str, str]
    positions: tuple[int, int]
    edits: tuple[str, ...] = ()
    names: tuple[str, str] = ("parent", "child")

    def to_pandas(self) -> pd.DataFrame:
        """CKA as a tidy table: one row a pair of layers. Other parts have their own: ``transfer``, ``drift``."""
        import pandas

        rows = [
            {"child_layer": child, "parent_layer": parent, "cka": self.cka[i][j]}
            for i, child in enumerate(self.child_layers)
            for j, parent in enumerate(self.parent_layers)
        ]
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """CKA of every layer with every layer."""
        return plotting.heat_map(
            ax,
            self.cka,
            rows=self.child_layers,
            columns=self.parent_layers,
            title="How alike the two streams are",
            x=f"place in the stream of {self.names[0]}",
            y=f"place in the stream of {self.names[1]}",
            unit="linear CKA (0 to 1)",
            limits=(0.0, 1.0),
        )

    def __str__(self) -> str:
        """The diff in lines that a person can read."""
        lines = [f"{self.names[0]} -> {self.names[1]}"]
        lines += [f"  edit      {edit}" for edit in self.edits]
        if self.positions[0] < self.positions[1]:
            read, of = self.positions
            lines.append(f"  positions the first {read} of {of}: {self.names[0]} was trained on shorter sequences")
        lines += [f"  accuracy  {name}: {was:.3f} -> {now:.3f}" for name, (was, now) in self.accuracy.items()]
        if self.retention is not None:
            lines.append("  halt      " + " -> ".join(_kept(part) for part in self.retention))
        for one in self.transfer:
            lines += _probe_lines(one)
        lines += [f"  heads     {change.kind}: {_heads(change)}" for change in self.heads if change.fate != "absent"]
        lines += self._cka_lines()
        if self.drift is not None:
            pairs = zip(self.drift.child_layers, self.drift.aligned, self.drift.chance, strict=True)
            shown = ", ".join(f"{layer} {cosine:+.2f} (chance {chance:.2f})" for layer, cosine, chance in pairs)
            lines.append(f"  halt direction, aligned cosine: {shown}")
        lines += [f"  without   {what}: {why}" for what, why in self.without.items()]
        return "\n".join(lines)

    def _cka_lines(self) -> list[str]:
        found = []
        for layer, row in zip(self.child_layers, self.cka, strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            found.append(f"  CKA       {layer} is most like {self.parent_layers[best]}: {row[best]:.2f}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a record."""
        shown: dict[str, Any] = {
            "parent_layers": self.parent_layers,
            "cka": self.cka,
            "transfer": {one.variable: _transfer_json(one) for one in self.transfer},
            "heads": {c.kind: {"parent": c.parent, "child": c.child, "fate": c.fate} for c in self.heads},
            "accuracy": {name: {"parent": was, "child": now} for name, (was, now) in self.accuracy.items()},
            "without": self.without,
            "positions": dict(zip(("read", "of"), self.positions, strict=True)),
        }
        if self.retention is not None:
            shown["retention"] = {"parent": vars(self.retention[0]), "child": vars(self.retention[1])}
        if self.drift is not None:
            shown["halt_direction_drift"] = vars(self.drift)
        return shown


def compare(parent: Generation | Bench, child: Generation | Bench) -> Comparison:
    """Compare two generations, or two models on benches, on the child's sequences.

    Two stages of one training can be compared as well. ``parent`` on a bench must be on one with the child's suite and
    plan.

    Raises:
        Unreadable: activations that are not finite.
        TypeError: a generation and a bench.
    """
    if isinstance(parent, Bench) and isinstance(child, Bench):
        return compare_benches(parent, child)
    if isinstance(parent, Bench) or isinstance(child, Bench):
        raise TypeError("compare two generations, or two benches")
    bench = child.bench()
    edits = child.edits if child.parent_genome == parent.genome.sha256 else ()
    beside = Bench(parent.network, child.suite, bench.plan)
    return compare_benches(beside, bench, edits=edits, names=(_called(parent), _called(child)))


def _called(one: Generation) -> str:
    """A generation's name in a diff, with its skill at the end of its training."""
    if one.stage != FINAL:
        return f"generation {one.number} after {one.stage} of its training"
    return f"generation {one.number}" + ("" if one.skill is None else f" (skill {one.skill:.3f})")


def compare_benches(
    parent: Bench, child: Bench, *, edits: Sequence[str] = (), names: tuple[str, str] = ("parent", "child")
) -> Comparison:
    """Compare two models on the child's sequences; ``parent`` must be on a bench with the child's suite and plan.

    Raises:
        Unreadable: activations that are not finite.
    """
    without: dict[str, str] = {}
    positions = min(parent.context, child.context), child.context
    parent, child = at_common_positions(parent, child)

    def attempt(what: str, make: Callable[[], Any]) -> Any:
        """A part that need not apply to these two models."""
        try:
            return make()
        except NotApplicable as error:
            without[what] = str(error)
            return None

    kinds = [attempt(f"heads of the {who}", partial(_kinds, b)) for who, b in (("parent", parent), ("child", child))]
    states = paired_states(parent, child, "test", CKA_ROWS, derive(child.plan.control, "cka"))
    pairs = {
        name: attempt(f"answers on {name}", partial(_answers, parent, child, name)) for name in child.suite.families
    }
    return Comparison(
        parent_layers=parent.layers,
        child_layers=child.layers,
        cka=tuple(tuple(row) for row in linear_cka(*states).tolist()),
        transfer=attempt("probes", lambda: transfers(parent, child)) or (),
        drift=attempt("halt direction", lambda: direction_drift(parent, child)),
        heads=_head_changes(*kinds),
        accuracy={name: pair for name, pair in pairs.items() if pair is not None},
        retention=attempt("halt", lambda: (bench_retention(parent).sequences, bench_retention(child).sequences)),
        without=without,
        positions=positions,
        edits=tuple(edits),
        names=names,
    )


def comparison(bench: Bench) -> dict[str, Any]:
    """Instrument: the child on the bench beside its parent.

    Raises:
        NotApplicable: there is no parent.
    """
    if bench.parent is None:
        raise NotApplicable("compare generations", "no parent", "a generation whose parent's checkpoint is kept")
    return {"comparison": compare_benches(bench.parent, bench).to_json()}


def _answers(parent: Bench, child: Bench, family: str) -> tuple[float, float]:
    """Share of right answers of both; the positions that both can read may hold no question."""
    return lens_family(parent, family).accuracy[-1], lens_family(child, family).accuracy[-1]


def _kinds(bench: Bench) -> dict[str, tuple[str, ...]]:
    return bench_scores(bench).kinds()


def _head_changes(
    parent: dict[str, tuple[str, ...]] | None, child: dict[str, tuple[str, ...]] | None
) -> tuple[HeadChange, ...]:
    """By kind; a model without heads has none of any."""
    was, now = parent or {}, child or {}
    return tuple(HeadChange(kind, was.get(kind, ()), now.get(kind, ())) for kind in dict.fromkeys([*was, *now]))


def _heads(change: HeadChange) -> str:
    return f"{change.fate} ({', '.join(change.parent) or 'none'} -> {', '.join(change.child) or 'none'})"


def _kept(part: Proportion) -> str:
    return f"{part.kept} of {part.n} prompts kept ({part.low:.3f} to {part.high:.3f})"


def _probe_lines(one: Transfer) -> list[str]:
    gained, lost = one.changed(MARGIN)
    best = max(range(len(one.child)), key=one.child.__getitem__)
    change = [f"{word} at {', '.join(layers)}" for word, layers in (("gained", gained), ("lost", lost)) if layers]
    own = f"best {max(one.parent):.3f} -> {max(one.child):.3f}, {' and '.join(change) or 'as before'}"
    carried = f"the parent's probe reads the child at {one.child_layers[best]}: {one.aligned[best]:.3f} aligned"
    direct = "" if one.direct is None else f", {one.direct[best]:.3f} as it is"
    return [f"  probe     {one.variable}: {own}; {carried}{direct}; constant answer {one.majority:.3f}"]


def _transfer_json(one: Transfer) -> dict[str, Any]:
    gained, lost = one.changed(MARGIN)
    names = ("parent_layers", "parent", "child", "direct", "aligned", "majority", "n_test")
    return {name: getattr(one, name) for name in names} | {"gained": gained, "lost": lost}
