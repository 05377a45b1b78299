"""The search space: which genomes are valid, and every single edit that leads from one valid genome to another."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from selfimprove.errors import ConfigError, InvalidEdit, InvalidGenome
from selfimprove.genome import architecture as architectures
from selfimprove.genome import expression as expressions
from selfimprove.genome import rewrites
from selfimprove.genome.edits import OPS, Edit, apply, change
from selfimprove.genome.fields import CONSTRAINT, FIELDS, SECTIONS, Field, format_value, pattern
from selfimprove.genome.genome import Genome
from selfimprove.genome.operations import CONST, OPERATIONS
from selfimprove.genome.paths import LEVELS_PER_TOKEN, path_tokens, value_at, with_value
from selfimprove.genome.recipe import EVEN, PROTECTED


@dataclass(frozen=True)
class SpaceConfig:
    """Which part of the space a search may use.

    Raises:
        ConfigError: no arm is on, or a limit that leaves nothing to choose.
    """

    architecture: bool = True
    """Offer edits of the architecture."""
    objective: bool = True
    """Offer edits of the objective."""
    recipe: bool = True
    """Offer edits of the recipe."""
    max_edits: int = 3
    """Most edits between a parent and its candidate."""
    min_blocks: int = 1
    max_blocks: int = 4
    max_width: int = 128
    max_window: int = 16
    """Longest window of sliding attention; no longer than the context of the tasks, which the space does not know."""
    max_batch: int = 64
    mixture: tuple[str, ...] = ()
    """Task families that a recipe may train on more often than on others."""
    constraint_editable: bool = False
    """Offer edits of the factor of the constraint's weight; else no genome of the space has one, and no edit can give
    it one. For measuring drift."""

    def __post_init__(self) -> None:
        if not (self.architecture or self.objective or self.recipe):
            raise ConfigError("space", "no arm", "architecture, objective, recipe", "switch at least one on")
        if self.constraint_editable and not self.recipe:
            raise ConfigError("space.constraint_editable", "true", "false, as space.recipe is false", "open both")
        if self.max_edits < 1:
            raise ConfigError("space.max_edits", self.max_edits, "at least 1")
        if not 1 <= self.min_blocks <= self.max_blocks <= 16:
            got, limit = f"{self.min_blocks}..{self.max_blocks}", "1 to 16, the first no larger than the second"
            raise ConfigError("space.min_blocks..max_blocks", got, limit)
        for name, path, value in (
            ("max_width", "architecture.width", self.max_width),
            ("max_window", "architecture.blocks.*.window", self.max_window),
            ("max_batch", "recipe.batch", self.max_batch),
        ):
            if value not in FIELDS[path].choices:
                raise ConfigError(f"space.{name}", value, FIELDS[path].limit)


class Space:
    """The typed space of genomes under one configuration. Immutable; every answer is a pure function."""

    def __init__(self, config: SpaceConfig | None = None) -> None:
        self.config = config or SpaceConfig()
        low, high = self.config.min_blocks, self.config.max_blocks
        self.fields: dict[str, Field] = FIELDS | {
            "architecture.width": FIELDS["architecture.width"].up_to(self.config.max_width),
            "architecture.blocks.*.window": FIELDS["architecture.blocks.*.window"].up_to(self.config.max_window),
            "architecture.blocks.*": Field("block", low=low, high=high, ops=FIELDS["architecture.blocks.*"].ops),
            "recipe.batch": FIELDS["recipe.batch"].up_to(self.config.max_batch),
            "recipe.mixture": replace(FIELDS["recipe.mixture"], choices=(EVEN, *self.config.mixture)),
        }
        if not self.config.constraint_editable:
            del self.fields[CONSTRAINT]
        arms = {name for name in SECTIONS if getattr(self.config, name)}
        self._open = {path: field for path, field in self.fields.items() if path.partition(".")[0] in arms}

    def describe(self, path: str) -> Field:
        """Kind, choices, bounds and operations of a path such as ``architecture.blocks.0.mixer``.

        Raises:
            InvalidEdit: a path that does not exist, is forbidden, or lies in an arm that is switched off.
        """
        wanted, shown = pattern(path), path if len(path) <= 200 else path[:200] + "..."
        if "*" in path:
            raise InvalidEdit("edit path", shown, ", ".join(self._open), "write a block's index for the *")
        if field := self._open.get(wanted):
            return field
        if wanted in FIELDS:
            closed = "this arm is switched off" if wanted in self.fields else "the constraint is protected"
            raise InvalidEdit(f"edit {path}", path, ", ".join(self._open), f"{closed} in the space")
        close = difflib.get_close_matches(wanted[:200], self._open, n=1)
        remedy = f"did you mean {close[0]}?" if close else "nothing else can be edited"
        raise InvalidEdit("edit path", shown, ", ".join(self._open), remedy)

    def validate(self, genome: Genome) -> None:
        """Check every value, what goes together with what, the depth and the objective.

        Raises:
            InvalidGenome: naming the path, the value, what is allowed, and the remedy.
        """
        blocks = genome.architecture.blocks
        low, high = self.config.min_blocks, self.config.max_blocks
        if not low <= len(blocks) <= high:
            raise InvalidGenome("architecture.blocks", f"{len(blocks)} blocks", f"{low} to {high}", "change the depth")
        if CONSTRAINT not in self.fields and genome.recipe.constraint_factor != PROTECTED:
            remedy = "the constraint is protected in the space"
            raise InvalidGenome(CONSTRAINT, genome.recipe.constraint_factor, f"{PROTECTED:g}", remedy)
        for path in self.value_paths(genome):
            value = value_at(genome, path)
            field = self.fields[pattern(path)]
            if field.coerce(value) is None:
                close = difflib.get_close_matches(str(value), [str(choice) for choice in field.choices], n=1)
                raise InvalidGenome(path, value, field.limit, f"did you mean {close[0]}?" if close else "")
        architectures.check(genome.architecture)
        expressions.validate(genome.objective.expression)

    def edits(self, genome: Genome) -> tuple[Edit, ...]:
        """Every single edit of a valid genome with numbers on their grids, in a fixed order.

        Each leads to a valid genome that differs in graph, loss or schedule. ``apply`` accepts more: numbers off the
        grid but within bounds, and any well-typed wrap.
        """
        found: list[Edit] = []
        if self.config.architecture:
            found += self._sets(genome, "architecture")
            found += self._block_edits(genome)
        if self.config.objective:
            found += self._objective_edits(genome)
        if self.config.recipe:
            found += self._sets(genome, "recipe")
        return tuple(found)

    def vocabulary(self) -> tuple[str, ...]:
        """Every token of every edit that ``edits`` can return, for any genome and any arm, in a fixed order."""
        return self._vocabulary

    @cached_property
    def _vocabulary(self) -> tuple[str, ...]:
        count = self.config.max_blocks
        words: list[str] = [*OPS, "<->"]
        for levels in range(1, LEVELS_PER_TOKEN + 1):
            for steps in itertools.product((0, 1), repeat=levels):
                words.append(".".join(f"args.{step}" for step in steps))
        for path, field in self.fields.items():
            words += [word for index in range(count) for word in path_tokens(path.replace("*", str(index)))]
            words += [format_value(choice) for choice in field.choices]
        words += [f"copy({index})" for index in range(count)]
        words += [*rewrites.TERMS, *rewrites.FACTORS, *rewrites.SCALES]
        return tuple(dict.fromkeys(words))

    def value_paths(self, genome: Genome, section: str = "") -> Iterator[str]:
        """Concrete paths of the architecture and recipe that a ``set`` may stand at."""
        for path, field in self.fields.items():
            if "set" not in field.ops or path.startswith("objective") or not path.startswith(section):
                continue
            if "*" in path:
                yield from (path.replace("*", str(index)) for index in range(len(genome.architecture.blocks)))
            else:
                yield path

    def _sets(self, genome: Genome, section: str) -> Iterator[Edit]:
        """Those of one section that change what takes effect there, and leave parts that go together."""
        before = getattr(genome, section).effective()
        for path in self.value_paths(genome, section):
            value = value_at(genome, path)
            for choice in self.fields[pattern(path)].choices:
                if choice == value:
                    continue
                edited = with_value(genome, path, choice)
                if getattr(edited, section).effective() == before:
                    continue
                if section != "architecture" or architectures.goes_together(edited.architecture):
                    yield Edit("set", path, choice)

    def _block_edits(self, genome: Genome) -> Iterator[Edit]:
        """Those that lead to another architecture, one whose parts go together."""
        before = genome.architecture.effective()
        for edit in self._moves(len(genome.architecture.blocks)):
            edited = change(edit, genome, self.fields["architecture.blocks.*"]).architecture
            if edited.effective() != before and architectures.goes_together(edited):
                yield edit

    def _moves(self, count: int) -> Iterator[Edit]:
        paths = [f"architecture.blocks.{index}" for index in range(count + 1)]
        if count < self.config.max_blocks:
            for path, source in itertools.product(paths, range(count)):
                yield Edit("insert", path, f"copy({source})")
        if count > self.config.min_blocks:
            yield from (Edit("remove", path) for path in paths[:count])
        for first, second in itertools.combinations(range(count), 2):
            yield Edit("swap", paths[first], paths[second])
        for path, source in itertools.product(paths[:count], range(count)):
            yield Edit("copy", path, f"copy({source})")

    def _objective_edits(self, genome: Genome) -> Iterator[Edit]:
        tree = genome.objective.expression
        constants = self.fields["objective.expression.value"].choices
        for position, node in tree.nodes():
            path = rewrites.node_path(position)
            if node.op == CONST:
                yield from (Edit("set", f"{path}.value", choice) for choice in constants if choice != node.value)
            yield from (Edit("set", f"{path}.op", op) for op in rewrites.alternatives(node.op))
            kept = rewrites.kept_argument(node)
            if kept is not None and rewrites.put(tree, position, node.args[kept]).anchored:
                yield Edit("remove", path)
            for index in OPERATIONS[node.op].indices:
                if index != node.value and rewrites.put(tree, position, replace(node, value=index)).anchored:
                    yield Edit("set", f"{path}.index", index)
        yield from (Edit("wrap", rewrites.node_path(at), template) for at, template in rewrites.wraps(tree))
        for first, second in rewrites.swaps(tree):
            yield Edit("swap", rewrites.node_path(first), rewrites.node_path(second))


def apply_all(edits: Sequence[Edit], genome: Genome, space: Space) -> Genome:
    """Apply edits one after the other, each to the genome that the ones before it leave.

    Raises:
        InvalidEdit: no edit or more than ``max_edits``, one that cannot be applied, or a total that changes nothing.
    """
    if not 1 <= len(edits) <= space.config.max_edits:
        raise InvalidEdit("apply edits", f"{len(edits)} edits", f"1 to {space.config.max_edits}")
    edited = genome
    for edit in edits:
        edited = apply(edit, edited, space)
    if edited.effective == genome.effective:
        raise InvalidEdit("apply edits", ", ".join(map(str, edits)), "edits that do not cancel out")
    return edited
