"""A controller's job: what is wrong with it costs the controller its proposals, what is wrong with us stops the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfimprove.controller.answers import ENTRY
from selfimprove.errors import LedgerError
from tests.loop.played import bench_of
from tests.loop.test_controlling import CONFIG, PRICE, Answering, Odd, Refusing, controlling

JOB = {"entry": ENTRY, "op": "ask", "price": PRICE}


def test_what_stops_a_job_stops_the_run_whatever_the_controller_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hiding(Odd):
        def __init__(self, config: Any, space: Any, execute: Any, genome_of: Any, seed: int) -> None:
            def ask() -> Any:
                try:
                    return execute(JOB, {}, ())
                except Exception:
                    raise ValueError("nothing happened") from None

            super().__init__(ask)

    bench = bench_of(CONFIG, tmp_path, Refusing(LedgerError("append a record")))
    with pytest.raises(LedgerError):
        controlling(bench, monkeypatch, Hiding).ask(1, CONFIG.seed_genome)
    assert not bench.journal.all("ask")


@pytest.mark.parametrize(
    ("payload", "inputs", "why"),
    [
        (
            {**JOB, "entry": "my_lab.worker"},
            {},
            "got my_lab.worker; allowed: selfimprove.training.worker, ",
        ),
        ({"entry": ENTRY, "op": "ask"}, {}, "KeyError: 'price'"),
        ({**JOB, "price": PRICE | {"watts": 1}}, {}, "unexpected keyword argument 'watts'"),
        ({**JOB, "genome": {}}, {}, "InvalidGenome"),
        ({**JOB, "seen": {1, 2}}, {}, "set is not JSON serializable"),
        (JOB, {"weights": Path("nowhere")}, "input weights: got nowhere; allowed: a file"),
    ],
    ids=["an unknown entry", "no price", "an unknown price", "no genome", "no JSON", "no file"],
)
def test_a_job_that_is_none_costs_its_controllers_proposals_and_not_the_run(
    payload: dict[str, Any], inputs: dict[str, Path], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asking(Odd):
        def __init__(self, config: Any, space: Any, execute: Any, genome_of: Any, seed: int) -> None:
            super().__init__(lambda: execute(payload, inputs, ()))

    bench = bench_of(CONFIG, tmp_path, Refusing(AssertionError("it was run")))
    assert len(controlling(bench, monkeypatch, Asking).ask(1, CONFIG.seed_genome)) == CONFIG.candidates
    [body] = bench.journal.all("ask")
    assert why in body["reason"]
    assert not bench.journal.all("permit")


def test_a_second_job_of_one_call_is_refused_and_the_first_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(Odd):
        def __init__(self, config: Any, space: Any, execute: Any, genome_of: Any, seed: int) -> None:
            super().__init__(lambda: [execute(JOB, {}, ()), execute(JOB, {}, ())])

    bench = bench_of(CONFIG, tmp_path, Answering())
    assert len(controlling(bench, monkeypatch, Twice).ask(1, CONFIG.seed_genome)) == CONFIG.candidates
    [body], [_], [charged] = (bench.journal.all(kind) for kind in ("ask", "permit", "charge"))
    assert "a second job for g001/ask; allowed: one a call" in body["reason"]
    assert charged["flops"] == PRICE["flops"]
