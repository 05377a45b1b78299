"""Help must be instant, and the trusted main process must never import torch."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

CLI = [sys.executable, "-m", "selfimprove.app.cli"]


def fastest(words, tries=3):
    """The best of a few tries: the property is the program's, the noise is the machine's."""
    times = []
    for _ in range(tries):
        begun = time.perf_counter()
        done = subprocess.run([*CLI, *words], capture_output=True, text=True, check=True, timeout=60)
        times.append(time.perf_counter() - begun)
        assert "usage: selfimprove" in done.stdout
    return min(times)


@pytest.mark.parametrize(
    ("words", "seconds"), [(["--help"], 0.5), (["run", "--help"], 1.5), (["status", "--help"], 0.5)]
)
def test_help_is_instant(words, seconds):
    assert fastest(words) < seconds


@pytest.mark.parametrize("module", ["launch", "session", "commands", "settings", "progress", "tracking", "tracker"])
def test_no_module_of_the_app_imports_torch_or_wandb(module):
    heavy = "{'torch', 'wandb', 'transformer_lens', 'pandas'}"
    code = f"import sys, selfimprove.app.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_composing_and_checking_a_configuration_imports_no_torch():
    code = (
        "import sys; from selfimprove.app.overrides import compose; from selfimprove.app.settings import settings_from;"
        "settings_from(compose([])); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
