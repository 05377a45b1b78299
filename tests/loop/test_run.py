"""The whole loop, for real: workers, sandbox, inspection, ledger, at micro scale."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit


def bodies(place: Any, kind: str, run: str = "whole") -> list[dict[str, object]]:
    lines = (place.folder / run / "ledger.jsonl").read_text().splitlines()
    return [record["body"] for record in map(json.loads, lines) if record["kind"] == kind]


def test_a_run_finishes_and_says_so(finished: Any) -> None:
    found = finished.status("whole")
    assert (found["state"], found["generation"], found["candidates"]) == ("finished", 2, 4)
    assert 0 < found["charged_flops"] <= found["limit_flops"]


def test_every_generation_has_a_checkpoint_and_an_inspection_of_its_leader(finished: Any) -> None:
    scored = {body["generation"] for body in bodies(finished, "score")}
    assert {body["generation"] for body in bodies(finished, "checkpoint")} == scored
    assert all(body["status"] == "complete" for body in bodies(finished, "inspection"))


def test_a_fresh_run_passes_its_audit(finished: Any) -> None:
    report = audit(finished.folder / "whole", FileAnchor(finished.folder / "state"))
    assert report.ok, report.findings
    assert report.anchored


def test_every_changed_byte_of_a_real_run_is_reported(finished: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder / "whole", copy)
    suffixes = {".jsonl", ".safetensors", ".json"}
    files = [p for p in copy.rglob("*") if p.suffix in suffixes and ".hydra" not in p.parts]
    draw = random.Random(0)
    for _ in range(200):
        path = draw.choice(files)
        data = bytearray(path.read_bytes())
        at = draw.randrange(len(data))
        before = data[at]
        data[at] = (before + draw.randrange(1, 256)) % 256
        path.write_bytes(data)
        report = audit(copy, FileAnchor(tmp_path / "nowhere"))
        assert not report.ok, f"{path.name} byte {at}"
        assert str(path.relative_to(copy)) in {finding.file for finding in report.findings}
        data[at] = before
        path.write_bytes(data)


def test_a_kept_generation_is_reproduced_to_the_same_weights(finished: Any) -> None:
    assert json.loads(finished.call("reproduce", "whole", "--generation", "0", "--json"))["identical"]


def test_five_kills_and_resumes_give_the_uninterrupted_lineage(finished: Any) -> None:
    expected = finished.status("whole")["lineage_sha256"]
    draw = random.Random(1)
    started = 0
    arguments: tuple[str, ...] = ("run", *finished.micro, "hydra.run.dir=killed")
    while started < 5:
        process = finished.start(*arguments)
        time.sleep(draw.uniform(2.0, 8.0))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        started += 1
        if (finished.folder / "killed" / "ledger.jsonl").exists():
            arguments = ("resume", "killed")
    if finished.status("killed")["state"] != "finished":
        finished.call("resume", "killed")
    assert finished.status("killed")["lineage_sha256"] == expected


def test_halt_stops_within_two_seconds_and_resume_wants_it_cleared(finished: Any) -> None:
    process = finished.start("run", *finished.micro, "hydra.run.dir=halted")
    deadline = time.monotonic() + 60
    while not (finished.folder / "halted" / "ledger.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    (finished.folder / "halted" / "HALT").write_text("a test\n")
    began = time.monotonic()
    while finished.status("halted")["state"] == "running" and time.monotonic() < began + 10:
        time.sleep(0.05)
    process.communicate(timeout=30)
    assert process.returncode == 4
    found = finished.status("halted")
    assert (found["state"], found["reason"]) == ("halted", "a test")
    assert "--clear-halt" in finished.call("resume", "halted", expect=2)
    finished.call("resume", "halted", "--clear-halt")
    assert finished.status("halted")["lineage_sha256"] == finished.status("whole")["lineage_sha256"]


@pytest.mark.parametrize("limit", ["limits.generations=1", "limits.flops=2e10"])
def test_a_limit_ends_the_run_cleanly_with_its_reason(finished: Any, limit: str) -> None:
    name = limit.partition("=")[0].replace(".", "-")
    place = f"hydra.run.dir={name}"
    finished.call("run", *finished.micro, limit, "limits.candidate_flops=2e10", place)
    found = finished.status(name)
    assert found["state"] == "limit"
    assert limit.partition("=")[0] in found["reason"]
    assert found["charged_flops"] <= found["limit_flops"]
