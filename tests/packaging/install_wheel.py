"""Install a wheel into an empty virtual environment and run it from an empty folder: ``make test-wheel``.

    python tests/packaging/install_wheel.py dist/selfimprove-0.1.0-py3-none-any.whl 2.13.0

Too slow for the test suite, and it needs a package index. Prints one line a step with its wall time in seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def step(name: str, command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run one command; its output, or the end of the script with what it said."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    print(f"{name:<28} {time.monotonic() - started:7.1f} s  exit code {done.returncode}", flush=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main(wheel: Path, torch: str) -> None:
    """All steps, in a temporary folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="selfimprove-wheel-") as place:
        home, empty = Path(place, "venv"), Path(place, "empty")
        empty.mkdir()
        venv.create(home, with_pip=True)
        hidden = ("PYTHON", "VIRTUAL_ENV", "WANDB_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        environment |= {"SELFIMPROVE_STATE_DIR": f"{place}/state", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        pip = [f"{home}/bin/python", "-m", "pip", "install", "--quiet", "-c", f"{ROOT}/constraints.txt"]
        command = f"{home}/bin/selfimprove"
        step("pip install torch", [*pip, f"torch=={torch}"], empty, environment)
        step("pip install the wheel", [*pip, str(wheel)], empty, environment)
        found = step("where it is", [f"{home}/bin/python", "-c", "import selfimprove; print(selfimprove.__file__)"],
                     empty, environment)  # fmt: skip
        if not found.startswith(str(home)):
            sys.exit(f"not the installed package: {found}")
        step("selfimprove --help", [command, "--help"], empty, environment)
        step("run experiment=tiny", [command, "run", "experiment=tiny"], empty, environment)
        print(step("selfimprove audit", [command, "audit"], empty, environment).strip())
        report = empty / "runs" / "latest" / "report.html"
        if not report.is_file():
            sys.exit(f"no report: {report}")
        print(f"report.html: {report.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
