"""What a stop that comes twice, or whose reader is gone, does to a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfimprove.app import signals
from selfimprove.app.signals import StopSignals


@pytest.fixture
def nobody_reads() -> Iterator[None]:
    """Standard error is a pipe whose other end is closed, as that of ``selfimprove run 2>&1 | tee log`` can be."""
    kept, (there, here) = os.dup(2), os.pipe()
    os.dup2(here, 2)
    os.close(there)
    os.close(here)
    yield
    os.dup2(kept, 2)
    os.close(kept)


def tell(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def test_a_scheduler_s_stop_that_make_passes_on_is_one_stop(tmp_path: Path) -> None:
    with StopSignals(tmp_path) as stop:
        tell(signal.SIGTERM, signal.SIGTERM)
        assert stop.requested()


def test_a_second_stop_later_on_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ONE_STOP", 0.0)
    with StopSignals(tmp_path), pytest.raises(KeyboardInterrupt):
        tell(signal.SIGTERM, signal.SIGTERM)


def test_a_person_who_presses_twice_means_it(tmp_path: Path) -> None:
    with StopSignals(tmp_path), pytest.raises(KeyboardInterrupt):
        tell(signal.SIGINT, signal.SIGINT)


def test_a_stop_that_nobody_reads_of_is_a_stop(tmp_path: Path, nobody_reads: None) -> None:
    with StopSignals(tmp_path) as stop:
        tell(signal.SIGTERM)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            tell(signal.SIGINT)
