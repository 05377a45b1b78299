"""The controller's weights are those on record, or the sitting ends: they steer what is proposed next."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfimprove.containment.keys import SigningKey
from selfimprove.errors import RunError
from selfimprove.loop import run as loop
from tests.loop.played import CONFIG, Player, Silent, nobody_learns
from tests.loop.records import bodies


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that a person stopped after its first generation."""
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    SigningKey.load(tmp_path / "state")
    monkeypatch.setattr(loop, "Supervisor", Player)
    nobody_learns(monkeypatch)
    run = tmp_path / "run"
    stopped = loop.run(CONFIG, run, Silent(), should_stop=lambda: bool(bodies(run, "generation")))
    assert (stopped.state, stopped.generation) == ("paused", 1)
    return run


@pytest.mark.parametrize("damage", ["changed", "missing", "a link"])
def test_a_run_whose_controller_was_changed_goes_on_once_it_is_put_back(run: Path, damage: str) -> None:
    [kept] = bodies(run, "controller")
    path = run / kept["weights"]
    assert path == run / "controller" / "g001.safetensors"
    whole, before = path.read_bytes(), (run / "ledger.jsonl").read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "a link":
        (path.parent / "elsewhere").write_bytes(whole)
        path.symlink_to("elsewhere")
    with pytest.raises(RunError, match=r"g001\.safetensors: got .*selfimprove audit") as caught:
        loop.run(CONFIG, run, Silent(), resume=True)
    assert caught.value.limit == kept["sha256"]
    assert (run / "ledger.jsonl").read_bytes().startswith(before)
    assert [body["generation"] for body in bodies(run, "ask")] == [1], "nothing was proposed in its place"
    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    assert loop.run(CONFIG, run, Silent(), resume=True).state == "finished"
