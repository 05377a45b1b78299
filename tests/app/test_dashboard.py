"""The W&B workspace: it is made without a network, and every chart names what a run really logs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest

from selfimprove.app import dashboard, tracked
from selfimprove.app.commands import recorded_tracking
from selfimprove.app.dashboard import SECTIONS, Chart
from selfimprove.app.folder import point_latest
from selfimprove.app.view import RunView
from tests.app import report_fixture as fixture
from tests.app.wandb_server import KEY, serving

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # of wandb-workspaces itself
needs_package = pytest.mark.skipif(
    find_spec("wandb_workspaces") is None, reason="needs wandb-workspaces: pip install -e '.[dashboard]'"
)


@pytest.fixture(scope="module")
def logged() -> tuple[set[str], set[str]]:
    """Keys of scalars, and of tables and drawings, of a whole run."""
    view, scalars = RunView(), set[str]()
    for line in fixture.full_run().lines:
        view.apply(line["kind"], line["body"])
        if line["kind"] == "generation":
            scalars |= set(tracked.metrics(view, line["body"]["generation"]))
    return scalars, set(tracked.figures(view))


def test_every_chart_names_what_a_run_logs(logged):
    scalars, drawn = logged
    for one in (one for content in SECTIONS.values() for one in content):
        if isinstance(one, Chart):
            assert {*one.keys, one.x} <= scalars, one.title
            assert one.keys or any(re.search(one.pattern, key) for key in scalars), one.title
        else:
            assert one.key in drawn


@needs_package
def test_the_workspace_is_printed_without_a_network(cli, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: pytest.fail("something wants to be sent"))
    answer = cli("dashboard", "--json", "--entity", "lab", "--project", "toys")
    assert answer.code == 0, answer.err
    sections = json.loads(answer.out)["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == list(SECTIONS)
    panels = [panel for section in sections for panel in section["panels"]]
    assert len(panels) == sum(map(len, SECTIONS.values()))
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    charts = [one for content in SECTIONS.values() for one in content if isinstance(one, Chart)]
    assert [line["chartTitle"] for line in lines] == [chart.title for chart in charts]
    assert [tuple(line.get("metrics", ())) for line in lines] == [chart.keys for chart in charts]
    assert [line.get("metricRegex", "") for line in lines] == [chart.pattern for chart in charts]
    assert {line["xAxis"] for line in lines} == {"generation", "charged_flops"}


@needs_package
def test_the_workspace_is_saved_where_the_login_says(tmp_path):
    with serving() as server:  # in a process of its own: W&B leaves a service behind in the one that asks it
        environment = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        command = [sys.executable, "-m", "selfimprove.app.cli", "dashboard", "--project", "toys"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        (view,) = server.views
        assert (view["entityName"], view["projectName"]) == ("lab", "toys")
        sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
        assert [section["name"] for section in sections] == list(SECTIONS)
        assert f"{server.url}/lab/toys" in done.stdout


@needs_package
def test_the_workspace_of_a_run_is_in_its_project(finished):
    (finished / ".hydra").mkdir(exist_ok=True)
    (finished / ".hydra" / "config.yaml").write_text("tracking: {project: theirs, entity: them}\n")
    arguments = dashboard.argparse.Namespace(run=str(finished), project=None, entity=None)
    assert dashboard._place(arguments) == ("theirs", "them")
    made = dashboard.workspace("them", "theirs")
    assert (made.entity, made.project, made.name) == ("them", "theirs", "selfimprove")


def test_the_workspace_without_a_name_is_of_the_latest_run_where_it_is(cli, finished, tmp_path):
    shutil.move(finished, tmp_path / "elsewhere")
    point_latest(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / ".hydra" / "config.yaml").write_text("tracking: {project: theirs, entity: them}\n")
    arguments = dashboard.argparse.Namespace(run=None, project=None, entity=None)
    assert dashboard._place(arguments) == ("theirs", "them")


@pytest.mark.parametrize("torn", ["tracking: {project: the", "\0" * 64], ids=["cut", "zeros"])
def test_a_torn_configuration_is_no_tracking(finished, torn):
    """Hydra does not sync what it writes: a power cut can leave half of it, or zeros."""
    (finished / ".hydra").mkdir(exist_ok=True)
    (finished / ".hydra" / "config.yaml").write_text(torn)
    assert recorded_tracking(finished) == {}


def test_a_missing_package_is_one_message(cli, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(dashboard, "import_module", missing)
    answer = cli("dashboard", "--json")
    assert answer.code == 2
    assert 'pip install "selfimprove[dashboard]"' in answer.err


@needs_package
def test_what_wandb_refuses_is_one_message(cli, monkeypatch):
    monkeypatch.setattr(dashboard, "workspace", lambda entity, project: 1 / 0)
    answer = cli("dashboard", "--entity", "lab")
    assert answer.code == 2
    assert answer.err.startswith("selfimprove: save the workspace: got lab/selfimprove (division by zero)")
    assert len(answer.err.splitlines()) == 1
