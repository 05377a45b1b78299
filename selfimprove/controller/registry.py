"""Controllers by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable

from selfimprove.controller.adversary import AdversarialProposer
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.evolution import EvolutionProposer
from selfimprove.controller.forecasting import ForecastProposer
from selfimprove.controller.local_search import LocalSearchProposer
from selfimprove.controller.optuna_search import OptunaProposer, gp, tpe, tpe_tuned
from selfimprove.controller.proposer import Execute, GenomeOf, Proposer
from selfimprove.controller.random_search import RandomProposer
from selfimprove.controller.reinforce import FrozenProposer, ReinforceProposer
from selfimprove.controller.transformer import TransformerProposer
from selfimprove.errors import ConfigError, SelfImproveError
from selfimprove.genome.space import Space
from selfimprove.own_modules import load

METHODS = ("ask", "tell", "restore")  # of a proposer
Maker = Callable[[ControllerConfig, Space, Execute, GenomeOf, int], Proposer]

CONTROLLERS: dict[str, Maker] = {
    "transformer": TransformerProposer,
    "random": lambda config, space, execute, genome_of, seed: RandomProposer(space),
    "adversary": lambda config, space, execute, genome_of, seed: AdversarialProposer(),
    "frozen": FrozenProposer,
    "reinforce": ReinforceProposer,
    "evolution": lambda config, space, execute, genome_of, seed: EvolutionProposer(config, space, genome_of),
    "forecaster": lambda config, space, execute, genome_of, seed: ForecastProposer(config, space, execute, genome_of),
    "local_search": lambda config, space, execute, genome_of, seed: LocalSearchProposer(space),
    "tpe": lambda config, space, execute, genome_of, seed: OptunaProposer(config, space, tpe),
    "tpe_tuned": lambda config, space, execute, genome_of, seed: OptunaProposer(config, space, tpe_tuned),
    "gp": lambda config, space, execute, genome_of, seed: OptunaProposer(config, space, gp, flat=True),
}


def register(name: str, maker: Maker) -> None:
    """Add a controller of one's own, in a module that ``controller.modules`` names.

    It runs in the supervisor's process, outside of every sandbox: it is code that is trusted. What it proposes is not:
    that becomes plain text, and passes the same checks as everybody's.

    Args:
        name: for ``controller.name``.
        maker: makes the proposer of one run of (config, space, execute, genome_of, seed).

    Raises:
        ConfigError: the name is taken.
    """
    if name in CONTROLLERS:
        raise ConfigError("register controller", name, "a name that is not taken", f"taken: {', '.join(CONTROLLERS)}")
    CONTROLLERS[name] = maker


def make(config: ControllerConfig, space: Space, execute: Execute, genome_of: GenomeOf, seed: int) -> Proposer:
    """Make the controller that ``config.name`` names, in the arm ``frozen`` of the recursion the one that never learns.

    Args:
        seed: of its initial weights, one for the whole run.

    Raises:
        ConfigError: there is no such controller, and the message lists those that exist; or it cannot be made, or is
            none.
    """
    load(config.modules, "controller.modules")
    if config.name not in CONTROLLERS:
        raise ConfigError("controller.name", config.name, ", ".join(CONTROLLERS))
    name = "frozen" if config.recursion == "frozen" else config.name
    operation, correct = f"make the controller {name}", "correct the module that registers it"
    try:
        made = CONTROLLERS[name](config, space, execute, genome_of, seed)
    except SelfImproveError:
        raise
    except Exception as error:
        limit = "a function of (config, space, execute, genome_of, seed)"
        raise ConfigError(operation, f"{type(error).__name__}: {error}", limit, correct) from error
    if missing := [method for method in METHODS if not callable(getattr(made, method, None))]:
        limit = f"an object with the methods {', '.join(METHODS)}"
        raise ConfigError(operation, f"{type(made).__name__} without {', '.join(missing)}", limit, correct)
    return made
