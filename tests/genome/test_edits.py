"""An edit can be read, printed, applied and taken back, and reaches nothing but the genome."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import OPS, Edit, apply, invert, parse_edit
from selfimprove.genome.expression import MAX_TEXT
from selfimprove.genome.genome import Genome
from selfimprove.genome.known_losses import KNOWN_LOSSES
from selfimprove.genome.space import Space, apply_all

[MULTI_TOKEN] = KNOWN_LOSSES["multi-token prediction"].edits
TERM = "objective.expression.args.1.args.1.args.1"  # of the wrapped loss: the dot product that the wrap brought
numbers = st.integers(0, 2**32)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@given(number=numbers)
@settings(max_examples=40, deadline=None)
def test_text_and_json_round_trips_give_the_same_edit(space: Space, walk: Any, number: int) -> None:
    for edit in space.edits(walk(number)):
        assert parse_edit(str(edit)) == edit
        assert Edit.from_json(json.loads(json.dumps(edit.to_json()))) == edit


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("architecture.blocks.0.conv_qkv=true", Edit("set", "architecture.blocks.0.conv_qkv", True)),
        ("architecture.blocks.0.gate=head", Edit("set", "architecture.blocks.0.gate", "head")),
        ("architecture.blocks.1=copy(0)", Edit("copy", "architecture.blocks.1", "copy(0)")),
        ("recipe.learning_rate=0.003", Edit("set", "recipe.learning_rate", 0.003)),
        ("architecture.zero_init=true", Edit("set", "architecture.zero_init", True)),
        ("+architecture.blocks.1=copy(0)", Edit("insert", "architecture.blocks.1", "copy(0)")),
        ("~architecture.blocks.1", Edit("remove", "architecture.blocks.1")),
        ("~objective.expression.args.1", Edit("remove", "objective.expression.args.1")),
        (
            "architecture.blocks.0 <-> architecture.blocks.1",
            Edit("swap", "architecture.blocks.0", "architecture.blocks.1"),
        ),
        ("objective.expression=mul( _ ,progress )", Edit("wrap", "objective.expression", "mul(_, progress)")),
    ],
)
def test_edits_are_written_like_hydra_overrides(text: str, edit: Edit) -> None:
    assert parse_edit(text) == edit
    assert parse_edit(str(edit)) == edit


@given(text=st.text(max_size=60) | st.text(alphabet="abcopy(01).~+=<->_ ", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_edit_or_refused(text: str) -> None:
    try:
        edit = parse_edit(text)
    except InvalidEdit:
        return
    assert parse_edit(str(edit)) == edit


@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        ("recipe.learning_rate=", "1", "x"),
        ("recipe.learning_rate=", "1", "e"),
        ("objective.expression=exp(a", " ", "b)"),
        ("objective.expression=exp", "(", ")"),
        ("a", " ", "<-b"),
        ("a", ".a", "!"),
    ],
)
def test_the_longest_text_is_read_at_once_whatever_it_repeats(before: str, repeated: str, after: str) -> None:
    text = before + repeated * ((MAX_TEXT - len(before + after)) // len(repeated)) + after
    taken = []
    for _ in range(5):  # the quickest, as other work on the machine can only slow it down
        start = time.process_time()
        with contextlib.suppress(InvalidEdit):
            parse_edit(text)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.05


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("+1", 1), ("1.", 1.0), ("1.5", 1.5), (".5", 0.5), ("-1.5e-3", -0.0015), ("1..5", "1..5"), (".", ".")],
)
def test_a_number_is_read_as_one_and_what_is_none_as_text(text: str, value: object) -> None:
    read = parse_edit(f"recipe.clip={text}").value
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("text", ["add(_,progress)", "add( _ , progress )", "add(\t_,   progress  )"])
def test_a_wrap_has_one_spelling_whatever_spaces_were_typed(text: str) -> None:
    assert parse_edit(f"objective.expression={text}").value == "add(_, progress)"


@given(data=st.recursive(leaves, lambda inner: st.dictionaries(st.sampled_from(["op", "path", "value"]), inner)))
@settings(max_examples=200, deadline=None)
def test_any_json_is_an_edit_or_refused(data: object) -> None:
    try:
        edit = Edit.from_json(data)
    except InvalidEdit:
        return
    assert edit.to_json() == data


@given(
    op=st.sampled_from(OPS),
    path=st.sampled_from(
        [
            "architecture",
            "architecture.width",
            "architecture.blocks",
            "architecture.blocks.0",
            "architecture.blocks.9",
            "architecture.blocks.-1.mixer",
            "architecture.blocks.0.attends",
            "architecture.blocks.*",
            "architecture.blocks.*.heads",
            "objective.expression",
            "objective.expression.args.0",
            "objective.expression.args.7.op",
            "objective.expression.args.12.value",
            "objective.expression.args.0.value",
            "recipe.batch",
            "__class__",
        ]
    )
    | st.text(max_size=20),
    value=leaves | st.sampled_from(["copy(0)", "copy(9)", "exp(_)", "exp(exp(_))", "add(_, _)", "sum(_)", "const"]),
)
@settings(max_examples=400, deadline=None)
def test_any_edit_applies_or_is_refused(space: Space, seed: Genome, op: str, path: str, value: Any) -> None:
    try:
        edited = apply(Edit(op, path, value), seed, space)
    except InvalidEdit:
        return
    space.validate(edited)


@pytest.mark.parametrize(
    "text",
    [
        "tasks.recall.pairs=2",
        "containment.limits.flops=1",
        "+containment.allow_degraded.0=copy(0)",
        "~constraint",
        "constraint.weight=0",
        "seed=1",
        "training.steps=1000",
        "evaluation.metric=accuracy",
        "recipe.__class__=x",
        "schema=2",
    ],
)
def test_what_lies_outside_the_genome_is_refused_with_the_list_of_what_does_not(
    space: Space, seed: Genome, text: str
) -> None:
    edit = parse_edit(text)
    with pytest.raises(InvalidEdit, match=r"architecture\.width.*objective\.expression.*recipe\.batch"):
        apply(edit, seed, space)
    if not text.startswith("recipe"):
        assert edit.kind == "forbidden"


@pytest.mark.parametrize(
    "edit",
    [
        Edit("set", "architecture.blocks.*.heads", 2),
        Edit("insert", "architecture.blocks.*", "copy(0)"),
        Edit("swap", "architecture.blocks.0", "architecture.blocks.*"),
    ],
    ids=str,
)
def test_the_star_of_the_table_is_no_path_of_a_genome(space: Space, seed: Genome, edit: Edit) -> None:
    with pytest.raises(InvalidEdit, match="a block's index"):
        apply(edit, seed, space)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture.width=64", "no change"),
        ("architecture.width=65", "got 65; allowed: 32, 48, 64, 96, 128"),
        ("architecture.width=true", "got True"),
        ("recipe.learning_rate=0.5", r"number in \[1e-05, 0.1\]"),
        ("architecture.blocks.0.mixer=mamba", "attention, sliding_attention, linear_attention, short_conv, none"),
        ("architecture.blocks.2.mixer=short_conv", "a block index from 0 to 1"),
        ("+architecture.blocks.1=copy(5)", r"copy\(i\) with i from 0 to 1"),
        ("architecture.blocks.0<->architecture.blocks.1", "no change"),
        ("architecture.blocks.1=copy(0)", "no change"),
        ("architecture.blocks.1=copy(2)", r"copy\(i\) with i from 0 to 1"),
        ("architecture.blocks.2=copy(0)", "a block index from 0 to 1"),
        ("objective.expression=copy(0)", "got copy; allowed: wrap"),
        ("architecture.blocks.0.kv_heads=4", "no change"),
        ("architecture.blocks.0.head_size=16", "no change"),
        ("architecture.blocks.0.head_size=64", r"head_size: got 64; allowed: 0, 8, 16, 32 at width 64"),
        ("architecture.blocks.0.window=4", "no change"),
        ("architecture.blocks.0.value_residual=true", "no change"),
        ("architecture.blocks.0<->objective.expression", "a path of the same kind"),
        ("architecture.width<->recipe.batch", "got swap; allowed: set"),
        ("objective.expression.args.0<->objective.expression.args.1", "no change"),
        ("objective.expression.args.1<->objective.expression.args.1.args.1", "does not overlap"),
        ("objective.expression.args.1.args.0.op=softmax", "nothing else"),
        ("objective.expression.args.1.args.1.op=mean", "allowed: softmax"),
        ("objective.expression.op=add(_, 1)", "got wrap; allowed: set"),
        ("objective.expression.value=2", "only constants"),
        ("objective.expression.args.0.value=200", r"number in \[-100, 100\]"),
        ("~objective.expression.args.1", "an argument of its own kind"),
        ("objective.expression=exp(exp(_))", "direct argument"),
        ("objective.expression=add(_, _)", "one _"),
        ("objective.expression=sum(_)", "a vector"),
        ("objective.expression=log_softmax(logits(0))", "one _"),
    ],
)
def test_an_edit_that_does_not_fit_says_what_would(space: Space, seed: Genome, text: str, message: str) -> None:
    with pytest.raises(InvalidEdit, match=message):
        apply(parse_edit(text), seed, space)


def test_heads_without_effect_cannot_be_set(space: Space, seed: Genome) -> None:
    genome = apply(parse_edit("architecture.blocks.0.mixer=short_conv"), seed, space)
    with pytest.raises(InvalidEdit, match="no change"):
        apply(parse_edit("architecture.blocks.0.heads=2"), genome, space)


def test_numbers_off_the_grid_apply_within_their_bounds(space: Space, seed: Genome) -> None:
    assert apply(parse_edit("recipe.learning_rate=0.00217"), seed, space).recipe.learning_rate == 0.00217
    whole = apply(parse_edit("recipe.clip=3"), seed, space).recipe.clip
    assert type(whole) is float


@given(number=numbers)
@settings(max_examples=15, deadline=None)
def test_applying_never_changes_the_parent(space: Space, walk: Any, number: int) -> None:
    genome = walk(number)
    before = copy.deepcopy(genome.to_json())
    for edit in space.edits(genome):
        apply(edit, genome, space)
    assert genome.to_json() == before


@given(number=numbers)
@settings(max_examples=15, deadline=None)
def test_an_inverse_leads_back_or_says_why_not(space: Space, walk: Any, number: int) -> None:
    genome = walk(number)
    for edit in space.edits(genome):
        if edit.op in ("remove", "copy") and edit.kind == "architecture" and not has_twin(genome, edit):
            with pytest.raises(InvalidEdit, match="no identical block"):
                invert(edit, genome)
            continue
        back = invert(edit, genome)
        assert apply(back, apply(edit, genome, space), space) == genome, edit
        assert parse_edit(str(back)) == back


def has_twin(genome: Genome, edit: Edit) -> bool:
    blocks = genome.architecture.blocks
    return blocks.count(blocks[int(edit.path.rpartition(".")[2])]) > 1


def test_a_block_without_a_twin_cannot_be_brought_back(space: Space, seed: Genome) -> None:
    edit = Edit("remove", "architecture.blocks.1")
    assert str(invert(edit, seed)) == "+architecture.blocks.1=copy(0)"
    single = apply(parse_edit("architecture.blocks.1.channel=relu2"), seed, space)
    for lost in (edit, Edit("copy", "architecture.blocks.1", "copy(0)")):
        with pytest.raises(InvalidEdit, match="no identical block is left"):
            invert(lost, single)


def test_a_copy_replaces_one_block_by_another(space: Space, seed: Genome) -> None:
    changed = apply(parse_edit("architecture.blocks.0.channel=relu2"), seed, space)
    copied = apply(parse_edit("architecture.blocks.1=copy(0)"), changed, space)
    assert [block.channel for block in copied.architecture.blocks] == ["relu2", "relu2"]
    three = apply(parse_edit("+architecture.blocks.2=copy(1)"), changed, space)
    edit = parse_edit("architecture.blocks.1=copy(0)")
    assert str(invert(edit, three)) == "architecture.blocks.1=copy(2)"
    assert apply(invert(edit, three), apply(edit, three, space), space) == three


@pytest.mark.parametrize(
    ("text", "kind", "allocates"),
    [
        ("architecture.width=32", "architecture", True),
        ("+architecture.blocks.0=copy(1)", "architecture", True),
        ("~architecture.blocks.0", "architecture", True),
        ("recipe.batch=8", "recipe", True),
        ("recipe.learning_rate=0.01", "recipe", False),
        ("architecture.blocks.0.mlp_ratio=2", "architecture", False),
        ("~objective.expression", "objective", False),
        ("architecture.blocks.0<->architecture.blocks.1", "architecture", False),
    ],
)
def test_an_edit_knows_its_kind_and_whether_it_allocates(text: str, kind: str, allocates: bool) -> None:
    edit = parse_edit(text)
    assert (edit.kind, edit.allocates) == (kind, allocates)


def test_the_head_and_the_distance_of_a_term_are_edits(space: Space, seed: Genome) -> None:
    wrapped = apply(parse_edit(MULTI_TOKEN), seed, space)
    assert wrapped.heads == (1,)
    texts = [f"{TERM}.args.1.args.0.index=2", f"{TERM}.args.0.index=3"]
    further = apply_all([parse_edit(text) for text in texts], wrapped, space)
    assert further.objective.expression.indices("logits") == (0, 2)
    assert further.objective.expression.indices("onehot") == (1, 3)
    assert {parse_edit(text) for text in texts} <= set(space.edits(wrapped))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective.expression.args.0.args.1.args.0.index=2", "objective.expression: .*onehot"),  # of cross-entropy
        (f"{TERM}.args.1.args.0.index=4", "allowed: 0, 1, 2, 3"),
        (f"{TERM}.args.0.index=0", "allowed: 1, 2, 3, 4"),
        (f"{TERM}.index=1", "allowed: none"),
        (f"{TERM}.args.0.value=3", "only constants"),
        (f"{TERM}.args.0.index=7", "0, 1, 2, 3, 4"),
    ],
)
def test_an_index_that_no_leaf_has_there_is_refused(space: Space, seed: Genome, text: str, message: str) -> None:
    wrapped = apply(parse_edit(MULTI_TOKEN), seed, space)
    with pytest.raises(InvalidEdit, match=message):
        apply(parse_edit(text), wrapped, space)


def test_removing_a_wrap_keeps_what_was_wrapped(space: Space, seed: Genome) -> None:
    rng = random.Random(0)
    wraps = [edit for edit in space.edits(seed) if edit.op == "wrap"]
    for edit in rng.sample(wraps, 20):
        assert apply(Edit("remove", edit.path), apply(edit, seed, space), space) == seed
