"""What a wheel holds, built from this checkout as an installer builds it; `make test-wheel` installs and runs one."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import selfimprove

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of the working tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return zipfile.ZipFile(found)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """Its METADATA."""
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def tracked(folder: str) -> list[str]:
    """Files of a folder of the repository, those that git ignores left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.mark.parametrize(("folder", "place"), [("conf", "selfimprove/conf"), ("interp", "interp")])
def test_every_file_of_a_folder_is_in_the_wheel(wheel: zipfile.ZipFile, folder: str, place: str) -> None:
    files = tracked(folder)
    assert files
    for name in files:
        stored = place + name.removeprefix(folder)
        assert wheel.read(stored) == (ROOT / name).read_bytes(), name


def test_every_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert set(tracked("selfimprove")) <= set(wheel.namelist())


@pytest.mark.parametrize(
    "name",
    [
        "interp/notebooks/tour.ipynb",
        "selfimprove/app/report/ladder.json",
        "selfimprove/app/report/templates/report.css",
        "selfimprove/app/report/templates/report.html.j2",
        "selfimprove/app/report/templates/report.js",
        "selfimprove/conf/config.yaml",
        "selfimprove/conf/experiment/tiny.yaml",
        "selfimprove/controller/forecaster.safetensors",
    ],
)
def test_what_is_no_code_is_there_and_not_empty(wheel: zipfile.ZipFile, name: str) -> None:
    assert wheel.getinfo(name).file_size > 0


def test_a_wheel_holds_nothing_but_the_two_packages_and_its_metadata(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"interp", "selfimprove", f"selfimprove-{selfimprove.__version__}.dist-info"}
    assert wheel.filename is not None
    assert Path(wheel.filename).stat().st_size < 5_000_000


def test_the_command_and_the_license_come_with_it(wheel: zipfile.ZipFile) -> None:
    information = f"selfimprove-{selfimprove.__version__}.dist-info"
    assert "selfimprove = selfimprove.app.cli:main" in wheel.read(f"{information}/entry_points.txt").decode()
    assert wheel.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_metadata_names_version_pythons_and_extras(metadata: Message) -> None:
    assert metadata["Version"] == selfimprove.__version__
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert {"dev", "docs", "notebooks", "outer"} <= set(metadata.get_all("Provides-Extra", []))
