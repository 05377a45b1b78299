"""The whole loop, for real: workers, sandbox, inspection, ledger, at micro scale."""

from __future__ import annotations

import functools
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benchmarks.faults import Baseline, Sitting, finish, judge, whole_lines
from selfimprove.archive import chain
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from tests.loop.records import bodies


def test_a_run_finishes_and_says_so(finished: Any) -> None:
    found = finished.status("whole")
    assert (found["state"], found["generation"], found["candidates"]) == ("finished", 2, 4)
    assert 0 < found["charged_flops"] <= found["limit_flops"]


def test_every_generation_has_a_checkpoint_and_an_inspection_of_its_leader(finished: Any) -> None:
    scored = {body["generation"] for body in bodies(finished.folder / "whole", "score")}
    assert {body["generation"] for body in bodies(finished.folder / "whole", "checkpoint")} == scored
    read = bodies(finished.folder / "whole", "inspection")
    assert {body["generation"] for body in read} == scored
    assert {body["status"] for body in read} == {"complete"}


def test_a_fresh_run_passes_its_audit(finished: Any) -> None:
    report = audit(finished.folder / "whole", FileAnchor(finished.folder / "state"))
    assert report.ok, report.findings
    assert report.anchored


@pytest.fixture
def lines_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line with the same bytes is not verified again: what an audit makes of one depends on nothing else."""
    is_signed, known = chain._is_signed, dict[tuple[str, str, bytes], bool]()

    def is_signed_once(entry: chain.Entry, verifier: Ed25519PublicKey) -> bool:
        key = entry.hash, entry.signature, verifier.public_bytes_raw()
        if key not in known:
            known[key] = is_signed(entry, verifier)
        return known[key]

    monkeypatch.setattr(chain, "decode", functools.cache(chain.decode))
    monkeypatch.setattr(chain, "_is_signed", is_signed_once)


@pytest.mark.usefixtures("lines_read_once")
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


def test_a_changed_manifest_is_not_what_a_generation_is_compared_with(finished: Any) -> None:
    shutil.copytree(finished.folder / "whole", finished.folder / "tampered")
    manifest = finished.folder / "tampered" / "checkpoints" / "g000-seed.json"
    manifest.write_text(manifest.read_text().replace('"steps":', '"steps":1'))
    told = finished.call("reproduce", "tampered", "--generation", "0", expect=2)
    assert manifest.name in told
    assert "selfimprove audit" in told


def test_a_kept_generation_is_reproduced_to_the_same_weights(finished: Any) -> None:
    assert json.loads(finished.call("reproduce", "whole", "--generation", "0", "--json"))["identical"]


@pytest.fixture(scope="module")
def killed(finished: Any) -> Iterator[tuple[Path, bytes, int]]:
    """A run whose main process was killed three times, then a zygote and a worker: its folder, its ledger, orphans."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(finished.folder / "state"))
        folder, draw, orphans = finished.folder / "killed", random.Random(1), 0
        records = (finished.folder / "whole" / "ledger.jsonl").read_bytes().count(b"\n")
        for _ in range(3):  # so many records later, and a moment more: a fast machine must not finish first
            written = whole_lines(folder).count(b"\n") + draw.randrange(records // 4)
            sitting = Sitting(folder, 0)
            while whole_lines(folder).count(b"\n") < written and sitting.process.poll() is None:
                time.sleep(0.005)
            assert sitting.kill("main", draw.uniform(0.0, 0.05), draw)
            orphans += sitting.wait()
        sitting = Sitting(folder, 0)
        assert sitting.kill("zygote", draw.uniform(1.0, 3.0), draw)
        assert sitting.kill("worker", draw.uniform(0.0, 3.0), draw)
        before = whole_lines(folder)
        yield folder, before, orphans + finish(sitting, folder, 0)[0]


def test_five_kills_and_resumes_give_the_uninterrupted_run(killed: tuple[Path, bytes, int], finished: Any) -> None:
    folder, before, orphans = killed
    alone = Baseline(finished.status("whole")["lineage_sha256"], 0.0)
    verdict = judge(folder, alone, before, orphans, sittings=4)
    assert verdict.passed, verdict


def test_the_study_of_faults_sees_a_fault(killed: tuple[Path, bytes, int], finished: Any) -> None:
    folder, before, _ = killed
    alone = Baseline(finished.status("whole")["lineage_sha256"], 0.0)
    assert not judge(folder, Baseline("0" * 64, 0.0), before, 0, sittings=4).same_lineage
    assert not judge(folder, alone, before.replace(b"genome", b"gnome", 1), 0, sittings=4).records_kept
    assert not judge(folder, alone, before, 1, sittings=4).passed
    (folder / "run" / "stray.jsonl").write_text("")
    assert not judge(folder, alone, before, 0, sittings=4).audited
    (folder / "run" / "stray.jsonl").unlink()


@pytest.mark.parametrize(
    "limit",
    [
        "limits.flops=3e9",
        "limits.wall_seconds=1",
        "limits.cpu_seconds=0.1",  # those that workers spend; see test_limits
    ],
)
def test_a_limit_ends_the_run_cleanly_with_its_reason_in_status_and_report(finished: Any, limit: str) -> None:
    name = limit.partition("=")[0]
    smaller = ["limits.candidate_flops=2e9"] if name == "limits.flops" else []
    finished.call("run", *finished.micro, limit, *smaller, f"hydra.run.dir={name}")
    found = finished.status(name)
    assert found["state"] == "limit"
    assert name in found["reason"]
    assert name in (finished.folder / name / "report.html").read_text()
    assert found["charged_flops"] <= found["limit_flops"]
    report = audit(finished.folder / name, FileAnchor(finished.folder / "state"))
    assert report.ok, report.findings
