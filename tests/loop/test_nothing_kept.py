"""A run that has kept no generation yet says so, whatever is asked of its generations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.ledger import LEDGER_NAME, Ledger
from selfimprove.containment.keys import SigningKey, state_dir
from selfimprove.errors import RunError
from selfimprove.loop.reexamination import inspect_again
from selfimprove.loop.reproduction import reproduce


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (reproduce, "reproduce generation: got 9; allowed: generations with a checkpoint: none yet"),
        (inspect_again, "inspect generation: got 9; allowed: inspected generations: none yet"),
    ],
)
def test_a_generation_of_a_run_without_any_is_answered_with_none_yet(
    ask: Callable[[Path, int], object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    key, anchor = SigningKey.load(state_dir()), FileAnchor(state_dir())
    with Ledger.create(tmp_path / LEDGER_NAME, key, anchor, {"run_id": "begun"}):
        pass
    with pytest.raises(RunError, match=f"{says}; selfimprove status says where the run stands"):
        ask(tmp_path, 9)
