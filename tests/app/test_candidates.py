"""Every candidate as an Optuna trial: Optuna reads what the ledger says, and its dashboard opens the file."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from selfimprove.app.tried import write_candidates
from selfimprove.app.view import RunView
from selfimprove.genome.edits import apply, parse_edit
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.space import Space

EDITS = ("recipe.batch=32", "recipe.learning_rate=0.0003", "architecture.norm=rmsnorm", "~architecture.blocks.1")
STATUS = ("promoted", "rejected", "stopped", "failed", "duplicate")


def view_of(genomes: dict[str, Genome]) -> RunView:
    view = RunView(run_id="r1", experiment="quick", config={"seed": 3}, charged_flops=9)
    for index, (name, genome) in enumerate(genomes.items()):
        view.apply("genome", {"sha256": name, "genome": genome.to_json()})
        place = {"generation": 1, "index": index}
        told = {"edits": [EDITS[index]], "kinds": ["recipe"], "status": "valid", "parent": "p", "genome": name}
        view.apply("proposal", {**place, **told})
    for index, status in enumerate(STATUS[: len(genomes)]):
        row = view.candidates[1, index]
        row.status, row.skill = status, 0.1 * index if status in ("promoted", "rejected", "stopped") else None
    view.apply("proposal", {"generation": 2, "index": 0, "edits": ["x=1"], "kinds": [], "status": "invalid"})
    return view


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    seed, space = seed_genome(), Space()
    genomes = {f"g{n}": apply(parse_edit(edit), seed, space) for n, edit in enumerate(EDITS)}
    return write_candidates(tmp_path_factory.mktemp("run"), view_of(genomes))


def storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def test_optuna_reads_what_the_ledger_says(written: Path) -> None:
    study = optuna.load_study(study_name="r1", storage=storage(written))
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    assert [trial.state for trial in study.trials] == states
    assert study.best_trial.number == 1
    assert study.best_value == pytest.approx(0.1)
    assert study.user_attrs == {"experiment": "quick", "seed": 3, "charged_flops": 9}
    first, *_, last = study.trials
    assert first.user_attrs["edits"] == ["recipe.batch=32"]
    assert first.user_attrs["fate"] == "promoted"
    assert "log_softmax" in first.user_attrs["objective"]
    assert (last.params, last.user_attrs["fate"], last.user_attrs["objective"]) == ({}, "invalid", None)


def test_parameters_are_what_differs_between_candidates(written: Path) -> None:
    trials = optuna.load_study(study_name="r1", storage=storage(written)).trials
    changed = {"recipe.batch", "recipe.learning_rate", "architecture.norm", "architecture.depth"}
    names = set(trials[0].params)
    assert changed <= names
    deep = ("architecture.blocks.1.", "architecture.unet_skips", "architecture.embedding_residual")
    assert all(name in changed or name.startswith(deep) for name in names)
    assert trials[0].params["recipe.batch"] == 32
    assert trials[1].params["recipe.learning_rate"] == 0.0003
    assert [trial.params["architecture.depth"] for trial in trials[:4]] == [2, 2, 2, 1]
    assert not any(name.startswith(deep) for name in trials[3].params)  # without effect in a single block


@pytest.mark.skipif(find_spec("optuna_dashboard") is None, reason="needs the extra dashboard")
@pytest.mark.filterwarnings("ignore")  # the dashboard's own
def test_the_dashboard_opens_it(written: Path) -> None:
    from optuna_dashboard import wsgi

    def ask(address: str) -> dict[str, object]:
        answered: list[str] = []
        asked = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": address,
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
        }
        asked |= {"SERVER_NAME": "x", "SERVER_PORT": "1", "wsgi.url_scheme": "http", "QUERY_STRING": ""}
        parts = app(asked, lambda status, headers, *_: answered.append(status))
        body = b"".join(parts)
        assert answered[0].startswith("200"), body
        return json.loads(body)

    app = wsgi(storage(written))
    (study,) = ask("/api/studies")["study_summaries"]
    assert study["study_name"] == "r1"
    assert len(ask(f"/api/studies/{study['study_id']}")["trials"]) == 5


def test_the_command_writes_it_and_says_how_it_is_opened(cli, finished):
    (finished / "candidates.optuna").unlink()  # of the run's own end
    out = cli("candidates").out
    assert "optuna-dashboard runs/micro/first/candidates.optuna" in out
    told = json.loads(cli("candidates", "--json").out)
    assert told == {"path": "runs/micro/first/candidates.optuna", "candidates": 4}
    names = optuna.get_all_study_names(storage(finished / "candidates.optuna"))
    assert len(names) == 1
    assert names[0].startswith("fake-")


def test_a_candidates_file_that_cannot_be_written_costs_no_run(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("selfimprove.app.tried.write_candidates", lambda run_dir, view: 1 / 0)
    answer = cli("run", "debug=micro", "hydra.run.dir=runs/micro/first")
    assert answer.code == 0
    assert "selfimprove candidates runs/micro/first" in answer.out + answer.err
