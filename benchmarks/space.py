"""Does every genome of the space keep its promises? Thousands of random ones, examined one after the other.

Half of them are drawn value by value, half are reached by edits from the seed genome. A line of ``genomes.jsonl`` is
one genome and the promises it broke; an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.setting import RESULTS, commit, machine
from benchmarks.sittings import append, lines, one_sitting
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import Edit, apply, invert, parse_edit
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.sampling import draw_genome, walk
from selfimprove.genome.space import Space, SpaceConfig
from selfimprove.nets import prices
from selfimprove.nets.cost import memory_shapes, parameter_shapes, quote
from selfimprove.seeds import derive

FOLDER = RESULTS / "space"
VOCAB, CONTEXT, BATCH = 17, 12, 2
TOLERANCE = 1e-5  # between two paths to the same logits, absolute and relative, in fp32
COUNTED = 0.05  # between priced and dispatched operations: roots of norms are left out
STEPS = 8  # most edits of a walk
TRIED = 12  # edits of a genome that are taken back

SPACE = Space(SpaceConfig(max_width=64, max_blocks=3, max_window=8))
"""The whole space but for its sizes: a genome takes a fraction of a second."""
Promise = Callable[[Genome, random.Random], bool]


def random_genome(number: int, space: Space = SPACE) -> Genome:
    """The genome of a number: drawn value by value if it is odd, reached by 3 to ``STEPS`` edits if it is even."""
    rng = random.Random(derive(number, "space"))
    return draw_genome(space, rng) if number % 2 else walk(seed_genome(), space, rng, rng.randint(3, STEPS))


def is_valid(genome: Genome, rng: random.Random) -> bool:
    """The space accepts it, at once and after a round trip through JSON."""
    SPACE.validate(genome)
    back = Genome.from_json(json.loads(json.dumps(genome.to_json())))
    return back == genome and back.sha256 == genome.sha256


def hash_is_canonical(genome: Genome, rng: random.Random) -> bool:
    """Filling in what has no effect from another genome leaves the hash as it is."""
    donors = draw_genome(SPACE, rng).architecture.blocks
    blocks = []
    for index, block in enumerate(genome.architecture.blocks):
        seen = genome.architecture.effective()["blocks"][index]
        donor = rng.choice(donors)
        blocks.append(replace(block, **{n: getattr(donor, n) for n in vars(block) if n not in seen}))
    other = replace(genome, architecture=replace(genome.architecture, blocks=tuple(blocks)))
    return other.sha256 == genome.sha256


def edits_read_and_lead_back(genome: Genome, rng: random.Random) -> bool:
    """Edits read as they are written, and their inverses lead back or are refused for want of a block to copy."""
    offered = SPACE.edits(genome)
    for edit in rng.sample(offered, min(TRIED, len(offered))):
        if parse_edit(str(edit)) != edit or Edit.from_json(json.loads(json.dumps(edit.to_json()))) != edit:
            return False
        edited = apply(edit, genome, SPACE)
        try:
            back = invert(edit, genome)
        except InvalidEdit as error:
            if edit.op not in ("remove", "copy") or "no identical block" not in str(error):
                return False
            continue
        if edited.sha256 == genome.sha256 or apply(back, edited, SPACE) != genome:
            return False
    return True


def paths_agree(genome: Genome, rng: random.Random) -> bool:
    """It builds, and the fast path gives the logits of the explicit one, with every parameter off its start value."""
    import torch

    from selfimprove.nets.transformer import build

    model = build(genome.architecture, vocab_size=VOCAB, context=CONTEXT, seed=rng.getrandbits(32), heads=genome.heads)
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    tokens = torch.randint(VOCAB, (2, CONTEXT), generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        fast = model(tokens)
        model.explicit = True
        return torch.allclose(fast, model(tokens), rtol=TOLERANCE, atol=TOLERANCE)


def hooked_copy_agrees(genome: Genome, rng: random.Random) -> bool:
    """The hooked copy gives the logits of the model, and its cache holds every hook."""
    import torch

    from interp.hooked import to_hooked
    from selfimprove.nets.transformer import build

    model = build(
        genome.architecture, vocab_size=VOCAB, context=CONTEXT, seed=rng.getrandbits(32), heads=genome.heads
    ).eval()
    tokens = torch.arange(CONTEXT).unsqueeze(0) % VOCAB
    with torch.no_grad():
        logits, cache = to_hooked(model).run_with_cache(tokens)
        return torch.allclose(logits, model(tokens), rtol=TOLERANCE, atol=TOLERANCE) and "hook_embed" in cache


def shapes_are_foreseen(genome: Genome, rng: random.Random) -> bool:
    """Names and shapes of parameters and of the optimizer's memory are those of the built model."""
    from selfimprove.nets.transformer import build

    state = build(genome.architecture, vocab_size=VOCAB, context=CONTEXT, seed=0, heads=genome.heads).state_dict()
    shapes = parameter_shapes(genome.architecture, VOCAB, CONTEXT, genome.heads)
    remembered = {name.partition(":")[2] for name in memory_shapes(genome.recipe, shapes)}
    foreseen = list(shapes.items()) == [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    return foreseen and remembered == set(shapes)


def quote_is_counted(genome: Genome, rng: random.Random) -> bool:
    """Matrix products equal torch's count exactly, everything else the dispatched operations within ``COUNTED``."""
    from benchmarks.counting import count

    recipe = replace(genome.recipe, batch=BATCH, batch_start=1.0, context=1.0, context_start=1.0)  # what is counted
    small = replace(genome, recipe=recipe)
    price = quote(small, vocab_size=VOCAB, context=CONTEXT, allowance_flops=0)
    products, rest = count(genome.architecture, batch=BATCH, vocab_size=VOCAB, context=CONTEXT, heads=genome.heads)
    if genome.heads:  # what is not a product is compared at one head, the seed's loss
        _, rest = count(genome.architecture, batch=BATCH, vocab_size=VOCAB, context=CONTEXT)
    bare = replace(small, objective=seed_genome().objective)
    loss = quote(bare, vocab_size=VOCAB, context=CONTEXT, allowance_flops=0).elementwise_flops_per_step
    loss -= BATCH * CONTEXT * seed_loss_flops()
    return price.matmul_flops_per_step == products and abs(loss - rest) <= COUNTED * rest


def seed_loss_flops() -> int:
    """Priced work of the seed's objective and of the constraint beside it, per token."""
    nodes = {node for _, node in seed_genome().objective.expression.nodes()}
    own = sum(prices.OBJECTIVE[n.op] * (VOCAB if n.op in prices.OVER_VOCABULARY else 1) for n in nodes)
    return own + VOCAB * prices.CONSTRAINT


PROMISES: dict[str, Promise] = {
    "valid": is_valid,
    "canonical hash": hash_is_canonical,
    "edits": edits_read_and_lead_back,
    "shapes": shapes_are_foreseen,
    "paths": paths_agree,
    "hooked copy": hooked_copy_agrees,
    "quote": quote_is_counted,
}


def examine(number: int, promises: dict[str, Promise] = PROMISES) -> list[str]:
    """Names of the promises that the genome of a number breaks; an exception breaks one, too."""
    genome = random_genome(number)
    broken = []
    for name, promise in promises.items():
        try:
            kept = promise(genome, random.Random(derive(number, name)))
        except Exception as error:
            broken.append(f"{name}: {type(error).__name__}: {error}"[:400])
        else:
            broken += [] if kept else [name]
    return broken


def main(arguments: Sequence[str]) -> int:
    """Run or resume the study and write ``summary.json``; returns 1 if a promise was broken."""
    import torch

    parser = argparse.ArgumentParser(prog="selfimprove study space", description=__doc__)
    parser.add_argument("--genomes", type=int, default=5000, help="how many to examine (default %(default)s)")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of records and summary")
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    records = chosen.results / "genomes.jsonl"
    with one_sitting(chosen.results):
        done = {row["number"] for row in lines(records)}
        for number in range(chosen.genomes):
            if number not in done:
                append(records, {"number": number, "genome": random_genome(number).short, "broken": examine(number)})
            if (number + 1) % 100 == 0:
                print(f"{number + 1} of {chosen.genomes} genomes", flush=True)
    summary = summarize([row for row in lines(records) if row["number"] < chosen.genomes])
    path = chosen.results / "summary.json"
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"{summary['examined']} genomes, {len(summary['broken'])} broke a promise; written to {path}")
    return 1 if summary["broken"] else 0


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many were examined, how many differ, and every one that broke a promise."""
    broken = [row for row in rows if row["broken"]]
    return {
        "examined": len(rows),
        "different": len({row["genome"] for row in rows}),
        "promises": list(PROMISES),
        "broken_by_promise": dict(Counter(name.partition(":")[0] for row in broken for name in row["broken"])),
        "broken": broken,
        "commit": commit(),
        "machine": machine(),
    }
