"""The forecaster as a controller of the loop: of many edits of the parent it proposes those of which it expects most.

What ``ControllerSampler`` does to an Optuna study is done here to genomes. Every candidate whose gain is known is a
trial, and its parameters are what takes effect in its genome (``selfimprove.controller.genome_table``), so that what an
edit gave to one parent says something about another. During a run it learns from these trials alone, anew at each ask;
what the transformer behind it learned before, it learned on synthetic objectives (``selfimprove study controller``).
An ask is a job of the sandboxed worker, priced and charged like any other. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfimprove.controller.answers import ENTRY, chosen, rows
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.forecaster_price import WEIGHTS, forecast_price, forecaster_genome
from selfimprove.controller.genome_table import row_of
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.proposer import Execute, Experience, GenomeOf, Price, Proposal
from selfimprove.controller.random_search import Selection
from selfimprove.controller.worth import Unlearned, standings
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, apply_all
from selfimprove.seeds import derive

MOST = 200  # trials that are read: the best half of them and the newest, where there are more
FEW = 4  # proposals that are chosen before the forecast is made anew
POOL, REFINED = 256, 128  # edits that are asked about: at first, and made of the best of those


@dataclass(frozen=True)
class Tried:
    """A candidate whose worth is known: what led to it, what it is, and what it came out as; less is better."""

    edits: tuple[Edit, ...]
    genome: Genome
    cost: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"edits": [e.to_json() for e in self.edits], "genome": self.genome.to_json(), "cost": self.cost}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tried:
        """What ``to_json`` wrote."""
        return cls(tuple(map(Edit.from_json, data["edits"])), Genome.from_json(data["genome"]), data["cost"])


class ForecastProposer(Unlearned):
    """Proposes what the forecaster expects most of.

    Args:
        config: its ``epsilon`` is the share of proposals that are drawn at random; ``learned`` whether the transformer
            is asked, or the experts alone.
        space: where the edits come from.
        execute: runs a job in the sandbox.
        genome_of: finds the parents of the history.
    """

    def __init__(self, config: ControllerConfig, space: Space, execute: Execute, genome_of: GenomeOf) -> None:
        self._config, self._grammar, self._execute, self._genome_of = config, Grammar(space), execute, genome_of

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """See ``Proposer.ask``. Random ones fill up: all, until two outcomes differ.

        Raises:
            InvalidEdit: the worker's answer is not a list of valid proposals.
        """
        selection, tried = Selection(parents, history), self._tried(history)
        wanted = round((1.0 - self._config.epsilon) * count)
        if wanted and len({one.cost for one in tried}) > 1:
            answer = self._execute(self._payload(parents, tried, wanted, seed), {"weights": WEIGHTS}, ())
            for item in rows(answer.result, wanted):
                selection.offer(*self._proposal(item, parents))
        return selection.fill(self._grammar, count, derive(seed, "fill"))

    def price(self, tried: Sequence[Tried], wanted: int) -> Price:
        """Price of asking for so many proposals after these trials."""
        most = max(len(row_of(one.genome)) for one in tried)
        return forecast_price(len(tried) + wanted, POOL + REFINED, most, -(-wanted // FEW) + 1)

    def _payload(self, parents: Sequence[Genome], tried: Sequence[Tried], wanted: int, seed: int) -> dict[str, Any]:
        return {
            "entry": ENTRY,
            "op": "forecast",
            "price": asdict(self.price(tried, wanted)),
            "seed": derive(seed, "pool"),
            "space": asdict(self._grammar.space.config),
            "genome": forecaster_genome().to_json(),
            "parents": [parent.to_json() for parent in parents],
            "tried": [one.to_json() for one in tried],
            "wanted": wanted,
            "learned": self._config.learned,
        }

    def _proposal(self, item: object, parents: Sequence[Genome]) -> tuple[Proposal, Genome]:
        parent, walk = chosen(self._grammar, item, parents)
        return Proposal(parent, walk.edits), walk.genome

    def _tried(self, history: Sequence[Experience]) -> list[Tried]:
        """The candidates whose worth is known, at most ``MOST``."""
        space = self._grammar.space
        standing = standings(history, self._genome_of, space)
        known = [(one, value) for one, value in zip(history, standing, strict=True) if value is not None]
        if len(known) > MOST:
            best = set(sorted(range(len(known)), key=lambda at: -known[at][1])[: MOST // 2])
            newest = [at for at in range(len(known)) if at not in best][-(MOST - len(best)) :]
            known = [known[at] for at in sorted(best.union(newest))]
        return [Tried(one.edits, apply_all(one.edits, self._genome_of(one.parent), space), -v) for one, v in known]
