"""The notebooks run top to bottom on one run, which they make themselves; all their plots are labelled."""

from __future__ import annotations

import base64
import os
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import matplotlib
import nbclient
import nbformat
import pytest

from interp import inspection, load_generation
from interp.notebooks import RUN, open_or_make_run
from selfimprove.errors import RunError

FOLDER = Path(__file__).parents[2] / "interp" / "notebooks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")
MICRO = ("experiment=tiny", "debug=micro", "generations=1")
OWN = (
    "inspection.modules=[my_package.my_probe]",
    "inspection.also=[comparison,attention_heads,halt_behavior,seen_before]",
)


def cells(path: Path) -> list[dict[str, Any]]:
    """Cells of either half of a pair, as far as they are to be the same."""
    found = jupytext.read(path).cells
    return [{name: cell[name] for name in ("cell_type", "source", "metadata")} for cell in found]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where there was no run: the one that a notebook makes, with the instrument of the notebook on own probes."""
    folder = tmp_path_factory.mktemp("notebooks")
    (own,) = [
        cell["source"] for cell in cells(FOLDER / "own_probe.py") if "my_probe" in cell["metadata"].get("tags", ())
    ]
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "my_probe.py").write_text(own)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(RUN, raising=False)
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        patch.setattr(tempfile, "mkdtemp", lambda prefix: str(folder))
        patch.chdir(folder)
        made = open_or_make_run(*MICRO, *OWN)
        patch.setenv(RUN, str(made))
        yield made


@pytest.fixture
def pyplot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Plots without a screen; the instruments that are registered meanwhile are not kept."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(inspection, "INSTRUMENTS", dict(inspection.INSTRUMENTS))
    plt.close("all")
    yield plt
    plt.close("all")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs_top_to_bottom_and_all_its_plots_have_a_title_and_labelled_axes(
    path: Path, run: Path, pyplot: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    assert figures
    for figure in figures:
        figure.canvas.draw()  # what cannot be drawn shows only here
        plotted = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
        assert plotted
        for ax in plotted:
            assert ax.get_title()
            assert ax.get_xlabel(), ax.get_title()
            assert ax.get_ylabel(), ax.get_title()
        for bar in set(figure.axes) - set(plotted):
            assert bar.get_ylabel(), "a color bar without a unit"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_halves_of_a_pair_say_the_same_and_no_output_is_kept(path: Path) -> None:
    notebook = path.with_suffix(".ipynb")
    assert cells(path) == cells(notebook), "run: jupytext --sync interp/notebooks/*.py"
    code = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_a_pair_runs_in_a_jupyter_kernel_and_shows_its_plot(run: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(FOLDER / "own_probe.ipynb", as_version=4)
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)
    shown = [
        o["data"]["image/png"] for c in notebook.cells for o in c.get("outputs", ()) if "image/png" in o.get("data", {})
    ]
    assert [base64.b64decode(image)[1:4] for image in shown] == [b"PNG"]


def test_the_config_entry_of_the_notebook_on_own_probes_makes_its_instrument_join_the_loop(run: Path) -> None:
    record = load_generation(run, 1).inspection
    assert record is not None
    assert record["instruments"]["seen_before"]["verdict"] == "read"
    assert record["summary"]["seen_before"].keys() == {"accuracy", "control", "majority"}


def test_a_run_that_was_named_is_opened_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN, str(tmp_path / "mine"))
    assert open_or_make_run() == tmp_path / "mine"


def test_a_run_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN, raising=False)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"experiment=huge(.|\n)*tiny"):
        open_or_make_run("experiment=huge")
