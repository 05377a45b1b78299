"""A zygote's environment lets no library believe that it could start a program or make a temporary file."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from selfimprove.containment.launcher import environment
from tests.containment.helpers import SPEC

LOOK = """
import ctypes.util, tempfile
tempfile.tempdir = "/nonexistent"
print(ctypes.util.find_library("of_no_machine"))
"""


@pytest.mark.parametrize("program", ["sh", "ls", "cc", "gcc"])
def test_no_program_is_found(program: str) -> None:
    assert shutil.which(program, path=environment(SPEC, None)["PATH"]) is None


def test_a_library_that_is_missing_is_looked_for_without_a_compiler() -> None:
    """torch's CUDA build asks ctypes for libraries as it is imported; with a compiler at hand that took a file."""
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, env=environment(SPEC, None), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("None\n", "")
