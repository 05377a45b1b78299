from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import Finding, audit
from selfimprove.archive.ledger import Ledger

if TYPE_CHECKING:
    from .conftest import Key, Run

FLIPS = 200


def whats(run: Run) -> list[str]:
    """``file:line: what`` of every finding."""
    return [f"{finding.file}:{finding.line}: {finding.what}" for finding in audit(run.folder, run.anchor).findings]


def test_a_fresh_run_has_no_findings(full_run: Run) -> None:
    report = audit(full_run.folder, full_run.anchor)
    assert report.findings == ()
    assert (report.ok, report.anchored, report.torn) == (True, True, False)
    assert report.entries == len(full_run.ledger.read_bytes().splitlines())


def test_a_copy_without_its_anchor_passes_unanchored(full_run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(full_run.folder, copy)
    for anchor in (None, FileAnchor(tmp_path / "nothing here")):
        report = audit(copy, anchor)
        assert (report.ok, report.anchored) == (True, False)


def test_a_chain_that_somebody_began_anew_does_not_pass_where_the_run_was_made(
    full_run: Run, key: Key, stranger: Key, tmp_path: Path
) -> None:
    """Another run id, for which there is no anchor, and another key, which the chain itself states."""
    anew = tmp_path / "anew"
    anew.mkdir()
    Ledger.create(anew / "ledger.jsonl", stranger, None, {"run_id": "0" * 32}).close()
    report = audit(anew, full_run.anchor, key.public_key_hex)
    assert [finding.what for finding in report.findings] == [
        "neither anchored nor signed on this machine: anybody can have written it (--foreign leaves this out)"
    ]
    assert audit(anew, full_run.anchor, stranger.public_key_hex).ok
    assert audit(anew, full_run.anchor).ok
    assert audit(full_run.folder, full_run.anchor, stranger.public_key_hex).ok, "its anchor says whose it is"


@pytest.mark.parametrize("anchored", [True, False])
def test_every_one_of_200_random_single_byte_changes_is_reported_with_its_file(full_run: Run, anchored: bool) -> None:
    files = sorted(path for path in full_run.folder.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".jsonl", ".json", ".safetensors"}
    choose = random.Random(7)
    for number in range(FLIPS):
        path = files[number % len(files)]
        original = path.read_bytes()
        changed = bytearray(original)
        position = choose.randrange(len(changed))
        changed[position] ^= choose.randrange(1, 256)
        path.write_bytes(changed)
        report = audit(full_run.folder, full_run.anchor if anchored else None)
        name = path.relative_to(full_run.folder).as_posix()
        line = 0 if path.suffix == ".safetensors" else original.count(b"\n", 0, position) + 1
        assert not report.ok
        # a newline made in the middle of a line splits it: either half may be named
        assert {(name, line), (name, line + 1)} & {(found.file, found.line) for found in report.findings}, position
        path.write_bytes(original)
    assert audit(full_run.folder, full_run.anchor).ok


def test_every_byte_of_a_ledger_counts(run: Run) -> None:
    original = run.ledger.read_bytes()
    for position in range(len(original)):
        for mask in (0x01, 0x20, original[position] ^ ord("\n")):
            if mask:
                changed = bytearray(original)
                changed[position] ^= mask
                run.ledger.write_bytes(changed)
                line = original.count(b"\n", 0, position) + 1
                findings = audit(run.folder, None).findings
                assert any(found.line in (line, line + 1) for found in findings), (position, mask)


class TestLedgerFindings:
    def test_a_torn_last_line_is_not_a_finding_and_its_recovery_is_checked(self, full_run: Run) -> None:
        with full_run.ledger.open("ab") as file:
            file.write(b'{"body":{"ge')
        report = audit(full_run.folder, full_run.anchor)
        assert (report.ok, report.torn) == (True, True)
        full_run.open().close()
        assert audit(full_run.folder, full_run.anchor).ok
        (part,) = (full_run.folder / "recovered").iterdir()
        part.write_bytes(b"other")
        assert [found.file for found in audit(full_run.folder, full_run.anchor).findings] == [f"recovered/{part.name}"]

    def test_an_end_cut_off_is_found_by_the_anchor_alone(self, full_run: Run) -> None:
        lines = full_run.ledger.read_bytes().splitlines(keepends=True)
        full_run.ledger.write_bytes(b"".join(lines[:-1]))
        assert any("against its anchor" in what and f":{len(lines)}:" in what for what in whats(full_run))
        assert audit(full_run.folder, None).ok

    def test_a_rewrite_under_another_key_is_found_by_the_anchor(self, run: Run, stranger: Key) -> None:
        run.ledger.unlink()
        with Ledger.create(run.ledger, stranger, None, {"run_id": "r1"}) as ledger:
            ledger.append("note", {})
            ledger.append("note", {})
        assert audit(run.folder, None).ok
        found = whats(run)
        assert "ledger.jsonl:1: the signature does not verify" in found
        assert any("entry 2 is not the anchored one" in what for what in found)

    def test_a_damaged_anchor_is_a_finding(self, run: Run) -> None:
        run.anchor.path("r1").write_bytes(b"{}")
        report = audit(run.folder, run.anchor)
        assert not report.ok
        assert not report.anchored
        assert "its anchor cannot be used" in report.findings[0].what

    def test_sums_that_do_not_add_up_are_found_with_their_line(self, run: Run) -> None:
        with run.open() as ledger:
            ledger.append("charge", {"key": "a", "account": "search", "flops": 5, "total": 6})
        found = whats(run)
        assert "ledger.jsonl:4: the total is 6 where the charges so far add up to 5" in found

    def test_bytes_after_the_last_line_are_a_finding(self, run: Run) -> None:
        with run.ledger.open("ab") as file:
            file.write(b"x")
        assert whats(run) == ["ledger.jsonl:4: ends in bytes that no torn append leaves behind"]


class TestFileFindings:
    @pytest.mark.parametrize("name", ["checkpoints/g001.safetensors", "inspections/g001.json", "config.json"])
    def test_a_missing_file_is_a_finding(self, full_run: Run, name: str) -> None:
        (full_run.folder / name).unlink()
        assert any(what.startswith(f"{name}:0: named by ledger line") for what in whats(full_run))

    @pytest.mark.parametrize(
        "name",
        ["checkpoints/more.safetensors", "controller/more.json", "inspections/deep/more.json", "events.jsonl"],
    )
    def test_a_file_that_the_ledger_does_not_name_is_a_finding(self, full_run: Run, name: str) -> None:
        path = full_run.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"{}")
        line = 0 if path.suffix == ".safetensors" else 1
        assert whats(full_run) == [f"{name}:{line}: not in the ledger"]

    @pytest.mark.parametrize(
        "name", ["checkpoints/x.safetensors.tmp", "wandb/run/x.jsonl", "notes.json", "report.html", "run.log"]
    )
    def test_leftovers_and_files_of_others_are_not(self, full_run: Run, name: str) -> None:
        path = full_run.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"{}")
        assert audit(full_run.folder, full_run.anchor).ok

    def test_a_broken_text_file_is_reported_at_the_line_where_it_breaks(self, full_run: Run) -> None:
        (full_run.folder / "config.json").write_bytes(b'{\n"seed": 1,\n"name" "x"\n}')
        assert whats(full_run)[0].startswith("config.json:3: its SHA-256")

    @pytest.mark.parametrize("target", ["/etc/hostname", "../outside.safetensors"])
    def test_a_link_is_not_the_file(self, full_run: Run, target: str) -> None:
        path = full_run.folder / "checkpoints" / "g001.safetensors"
        path.rename(full_run.folder / "outside.safetensors")
        path.symlink_to(target)
        assert any("g001.safetensors:0: named by" in what and "cannot be read" in what for what in whats(full_run))

    def test_a_fifo_does_not_hang_the_audit(self, full_run: Run) -> None:
        path = full_run.folder / "checkpoints" / "g001.safetensors"
        path.unlink()
        os.mkfifo(path)
        assert any("not a regular file" in what for what in whats(full_run))

    @pytest.mark.parametrize("name", ["/etc/hostname", "../../up", "a\0b", "checkpoints", "x" * 5000])
    def test_a_recorded_path_that_is_no_file_of_the_run_is_a_finding(self, run: Run, name: str) -> None:
        with run.open() as ledger:
            ledger.append("checkpoint", {"path": name, "sha256": "0" * 64})
        assert any("cannot be read" in what for what in whats(run))

    def test_kept_outputs_of_a_worker_are_checked_and_others_are_not_missed(self, run: Run) -> None:
        (run.folder / "kept").mkdir()
        (run.folder / "kept" / "w.bin").write_bytes(b"w")
        files = {"weights": "0" * 64, "kept/w.bin": hashlib.sha256(b"w").hexdigest()}
        with run.open() as ledger:
            ledger.append("permit", {"key": "g001/c00/s1@1/1", "counter": 1, "account": "search", "flops": 1})
            ledger.append("outcome", {"key": "g001/c00/s1", "stage": "1/1", "status": "completed", "files": files})
        assert whats(run) == []
        (run.folder / "kept" / "w.bin").write_bytes(b"v")
        assert any(what.startswith("kept/w.bin:1: its SHA-256") for what in whats(run))

    def test_a_file_written_again_counts_as_last_recorded(self, run: Run) -> None:
        path = run.folder / "x.bin"
        with run.open() as ledger:
            for content in (b"old", b"new"):
                path.write_bytes(content)
                ledger.append("inspection", {"path": "x.bin", "sha256": hashlib.sha256(content).hexdigest()})
        assert whats(run) == []

    @pytest.mark.parametrize("field", ["weights_sha256", "genome_sha256"])
    def test_a_manifest_that_contradicts_its_record_is_a_finding(self, run: Run, field: str) -> None:
        weights, manifest = b"w", json.dumps({field: "another"}).encode()
        (run.folder / "w.bin").write_bytes(weights)
        (run.folder / "w.json").write_bytes(manifest)
        hashes = {
            "sha256": hashlib.sha256(weights).hexdigest(),
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        }
        with run.open() as ledger:
            ledger.append("checkpoint", {"path": "w.bin", "manifest": "w.json", "genome": "g", **hashes})
        assert whats(run) == [f"w.json:1: its {field} is not that of ledger line 4 (checkpoint)"]


class TestGarbage:
    @pytest.mark.parametrize(
        "make",
        [
            lambda folder: None,
            lambda folder: folder.mkdir(),
            lambda folder: folder.write_text("a file"),
            lambda folder: (folder / "ledger.jsonl").mkdir(parents=True),
            lambda folder: (folder.mkdir(), os.mkfifo(folder / "ledger.jsonl")),
            lambda folder: (folder.mkdir(), (folder / "ledger.jsonl").touch()),
            lambda folder: (folder.mkdir(), (folder / "ledger.jsonl").symlink_to("ledger.jsonl")),
        ],
        ids=["nothing", "empty folder", "a file", "a folder for a ledger", "a FIFO", "an empty ledger", "a circle"],
    )
    def test_what_is_no_run_folder_is_a_finding(self, tmp_path: Path, make: Callable[[Path], Any]) -> None:
        folder = tmp_path / "thing"
        make(folder)
        report = audit(folder, FileAnchor(tmp_path / "state"))
        assert not report.ok
        assert "ledger.jsonl" in {finding.file for finding in report.findings}

    @given(data=st.binary() | st.text('{}[]":,abody01\n').map(str.encode))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
    def test_any_bytes_are_audited_without_an_exception(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "ledger.jsonl").write_bytes(data)
        assert not audit(tmp_path, FileAnchor(tmp_path / "state")).ok

    @given(
        kind=st.sampled_from(["run", "outcome", "checkpoint", "controller", "inspection", "recovery", "permit"]),
        body=st.dictionaries(
            st.sampled_from(["path", "sha256", "manifest", "weights", "files", "limits", "config_sha256", "key"]),
            st.none() | st.integers() | st.text(max_size=4) | st.dictionaries(st.text(max_size=3), st.integers()),
        ),
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    def test_any_signed_record_is_audited_without_an_exception(
        self, tmp_path: Path, key: Key, kind: str, body: dict[str, Any]
    ) -> None:
        path = tmp_path / "ledger.jsonl"
        path.unlink(missing_ok=True)
        try:
            with Ledger.create(path, key, None, {"run_id": "r"}) as ledger:
                ledger.append(kind, body)
        except UnicodeEncodeError:
            return
        assert all(isinstance(finding, Finding) for finding in audit(tmp_path, None).findings)


def test_auditing_changes_nothing(full_run: Run) -> None:
    def state() -> dict[str, bytes]:
        paths = [*full_run.folder.rglob("*"), full_run.anchor.path("full")]
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}

    before = state()
    audit(full_run.folder, full_run.anchor)
    assert state() == before
