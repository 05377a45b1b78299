"""Optuna's samplers on the edits of a parent: one edit is one trial. Imports no torch before a GP is asked.

A sampler thinks in parameters, a controller proposes at most ``max_edits`` edits of a parent that changes from
generation to generation. Describing a genome by its values at all 60 to 100 paths, and going from the parent towards
what the sampler suggests, throws away most of a suggestion: TPE and GP change most paths at once, a proposal changes
three, and which three the sampler does not say. So what is searched here is the edit itself, a tree of two levels as
TPE was made for (Bergstra et al. 2011, NeurIPS 24): ``place``, an operation and a path, and below it the value that it
brings, ordinal where it is a number. TPE is asked once for each edit of a proposal, and how many it has is drawn
as the random controller draws it, so that the arms differ by which edits they choose and by nothing else.

- *Trials.* Each edit of the history that the parent still offers is one, whatever the parent was that it was made of.
- *Value.* The gain of the whole proposal over its own parent (see ``worth``). Nothing is added up along the parents:
  what their promotions brought, the present parent has already, and no remaining edit can bring it again.
- *Outcomes.* A denied or failed candidate is a complete trial with the worst value measured: as FAIL, Optuna would
  forget it. Neither is one that halving has cut PRUNED: its gain is known, and TPE would rank it below all others. What
  nothing is known of is no trial.
- *Batch.* A suggestion stays RUNNING until the end of the ask, so that TPE's constant liar and GP's qLogEI keep the
  next ones away from it. What the grammar does not allow after the edits before it, and repetitions, are drawn again.

A GP knows no conditional parameters: for it the value is a number from 0 to 1, its rank among the place's values. Each
of its suggestions costs about a second, so that it is asked for a short list, from the most recent trials, and
proposals combine what is on it.

Every ask builds its own study in memory and is a pure function of its arguments. The samplers' work is not charged to
the budget: it trains no model of ours, and its time is measured in ``benchmark proposers``.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import create_trial

from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import Grammar, edits_after
from selfimprove.controller.proposer import Experience, Proposal
from selfimprove.controller.quiet import quiet
from selfimprove.controller.random_search import Selection
from selfimprove.controller.variation import Variant
from selfimprove.controller.worth import Unlearned, worths
from selfimprove.genome.edits import Edit, apply
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.seeds import derive

PLACE, VALUE = "place", "value"
SHORT_LIST = 8  # suggestions of a GP in one ask
RECENT = 96  # trials that a GP is fitted to: its time grows with their cube
TRIES = 8  # suggestions for one edit, and proposals for one place, before random ones fill up
MORE = 0.5  # chance of a further edit, as in the random controller

Sampler = Callable[[ControllerConfig, int], BaseSampler]
Source = Callable[[], Edit]


def tpe(config: ControllerConfig, seed: int) -> BaseSampler:
    """TPE as Optuna sets it up."""
    return TPESampler(seed=_narrow(seed))


def tpe_tuned(config: ControllerConfig, seed: int) -> BaseSampler:
    """Multivariate TPE with ``startup``, ``candidates`` and ``gamma`` of the configuration.

    Not grouped: the groups of this tree are its single parameters, all of which Optuna would draw for every suggestion.
    """
    with warnings.catch_warnings():  # deprecated in Optuna 5, without a successor: the pin of optuna keeps it
        warnings.simplefilter("ignore", FutureWarning)
        return TPESampler(
            seed=_narrow(seed),
            multivariate=True,
            n_startup_trials=config.startup,
            n_ei_candidates=config.candidates,
            gamma=lambda trials: max(1, round(config.gamma * trials)),
        )


def gp(config: ControllerConfig, seed: int) -> BaseSampler:
    """GP as Optuna sets it up."""
    return GPSampler(seed=_narrow(seed))


class OptunaProposer(Unlearned):
    """Asks an Optuna sampler for edits.

    Args:
        config: settings of the sampler.
        space: where the edits come from.
        sampler: makes the sampler of one ask from its seed.
        flat: for a sampler without conditional parameters.
    """

    def __init__(self, config: ControllerConfig, space: Space, sampler: Sampler, *, flat: bool = False) -> None:
        self._config, self._sampler, self._flat = config, sampler, flat
        self._grammar = Grammar(space)

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """See ``Proposer.ask``."""
        selection, rng = Selection(parents, history), random.Random(derive(seed, "edits"))
        with quiet(optuna.logging.ERROR):  # it advises to install what makes a GP a little faster, too
            sources = [
                self._source(parent, history, derive(seed, "sampler", index), rng)
                for index, parent in enumerate(parents)
            ]
            for position in range(count):
                index = position % len(parents)
                for _ in range(TRIES):
                    edits, child = self._variant(parents[index], sources[index], rng)
                    if edits and selection.offer(Proposal(index, edits), child):
                        break
        return selection.fill(self._grammar, count, derive(seed, "fill"))

    def _source(self, parent: Genome, history: Sequence[Experience], seed: int, rng: random.Random) -> Source:
        """Where the edits of one parent come from: the sampler itself, or a short list of what it suggests first."""
        study, menu = self._study(parent, history, seed)
        if not self._flat or not study.get_trials(deepcopy=False):
            return lambda: menu.suggest(study.ask())
        listed = [menu.suggest(study.ask()) for _ in range(SHORT_LIST)]
        return lambda: rng.choice(listed)

    def _study(self, parent: Genome, history: Sequence[Experience], seed: int) -> tuple[optuna.Study, Menu]:
        """A study of the edits of one parent, with a trial for each of the history that it offers."""
        menu = Menu(self._grammar, parent, flat=self._flat)
        study = optuna.create_study(direction="maximize", sampler=self._sampler(self._config, seed))
        known = [
            (edit, worth)
            for experience, worth in zip(history, worths(history), strict=True)
            for edit in experience.edits
            if worth is not None and edit in menu.edits
        ]
        for edit, worth in known[-RECENT:] if self._flat else known:
            params = menu.describe(edit)
            spaces = {name: menu.distributions[name] for name in params}
            study.add_trial(create_trial(params=params, distributions=spaces, value=worth))
        return study, menu

    def _variant(self, parent: Genome, source: Source, rng: random.Random) -> Variant:
        """Edits that the sampler suggests one after the other; none where it suggests nothing that can be done."""
        edits, genome, wanted = (), parent, 1  # type: tuple[Edit, ...], Genome, int
        while wanted < self._grammar.max_edits and rng.random() < MORE:
            wanted += 1
        for _ in range(wanted):
            for _ in range(TRIES):
                edit = source()
                if not edits or edit in edits_after(self._grammar.space, genome, edits):
                    edits, genome = (*edits, edit), apply(edit, genome, self._grammar.space)
                    break
        return edits, genome


class Menu:
    """The edits of one parent as parameters.

    Attributes:
        edits: all of them.
        distributions: of every parameter, by its name.
    """

    def __init__(self, grammar: Grammar, parent: Genome, *, flat: bool) -> None:
        self._flat = flat
        self._by_place: dict[str, list[Edit]] = {}
        for edit in edits_after(grammar.space, parent, ()):
            self._by_place.setdefault(_place(edit), []).append(edit)
        self.edits = {edit for offered in self._by_place.values() for edit in offered}
        self.distributions: dict[str, BaseDistribution] = {PLACE: CategoricalDistribution(list(self._by_place))}
        if flat:
            self.distributions[VALUE] = FloatDistribution(0.0, 1.0)
            return
        for place, offered in self._by_place.items():
            if len(offered) > 1:
                ordinal = grammar.space.describe(offered[0].path).kind in ("integer", "number")
                last = len(offered) - 1
                self.distributions[place] = IntDistribution(0, last) if ordinal else _among(offered)

    def describe(self, edit: Edit) -> dict[str, float | int | str]:
        """The parameters of an edit."""
        place = _place(edit)
        offered = self._by_place[place]
        index = offered.index(edit)
        if self._flat:
            return {PLACE: place, VALUE: (index + 0.5) / len(offered)}
        return {PLACE: place, place: index} if len(offered) > 1 else {PLACE: place}

    def suggest(self, trial: optuna.Trial) -> Edit:
        """The edit whose parameters a trial suggests."""
        place = trial.suggest_categorical(PLACE, list(self._by_place))
        offered = self._by_place[place]
        if self._flat:
            return offered[min(int(trial.suggest_float(VALUE, 0.0, 1.0) * len(offered)), len(offered) - 1)]
        if len(offered) == 1:
            return offered[0]
        if isinstance(self.distributions[place], IntDistribution):
            return offered[trial.suggest_int(place, 0, len(offered) - 1)]
        return offered[trial.suggest_categorical(place, range(len(offered)))]


def _among(offered: Sequence[Edit]) -> CategoricalDistribution:
    return CategoricalDistribution(range(len(offered)))


def _place(edit: Edit) -> str:
    return f"{edit.op} {edit.path}"


def _narrow(seed: int) -> int:
    """NumPy's generators take 32 bits."""
    return derive(seed, "numpy") % 2**32
