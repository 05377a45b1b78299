"""What a locked-down worker has left: itself, its own descriptors, and nothing of its ancestors.

What it cannot do is the red team's business: ``test_redteam.py``.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from selfimprove.containment.supervisor import Completed, Supervisor
from tests.containment.helpers import outcome_of


def test_a_worker_may_signal_itself(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("signal_self"))
    assert isinstance(outcome, Completed)
    assert outcome.result == {"signalled": True}


def test_a_crash_of_a_worker_leaves_no_core_dump_even_where_dumps_go_to_a_program(
    supervisor: Supervisor, make_job: Any
) -> None:
    outcome = outcome_of(supervisor, make_job("core_limit"))
    assert isinstance(outcome, Completed)
    most = min(1, resource.getrlimit(resource.RLIMIT_CORE)[1] % (1 << 64))  # what cannot be raised stays at 0
    assert outcome.result["limits"] == [most, most]  # core(5): 0 would not hold for a pipe


def test_a_worker_holds_no_descriptor_but_its_own(supervisor: Supervisor, make_job: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    outcome = outcome_of(supervisor, make_job("look", inputs={"in": tmp_path / "in"}, outputs=["out"]))
    assert isinstance(outcome, Completed)
    assert len(outcome.result["descriptors"]) == 3 + 2 + 2  # standard ones, payload and events, input and output


def test_a_worker_inherits_nothing_of_the_environment(
    make_supervisor: Any, make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with make_supervisor() as supervisor:
        outcome = outcome_of(supervisor, make_job("look"))
    assert isinstance(outcome, Completed)
    assert "WANDB_API_KEY" not in outcome.result["environment"]
    assert "secret" not in str(outcome.result["environment"].values())
    assert outcome.result["environment"]["HOME"] == "/nonexistent"


def test_a_worker_does_not_have_the_signing_code_loaded(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("look"))
    assert isinstance(outcome, Completed)
    loaded = set(outcome.result["modules"])
    assert not loaded & {"cryptography", "selfimprove.containment.keys", "selfimprove.containment.supervisor"}
