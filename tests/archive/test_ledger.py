from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from selfimprove.archive import anchor as anchor_module
from selfimprove.archive import ledger as ledger_module
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.chain import encode
from selfimprove.archive.ledger import Ledger, read, utc_now
from selfimprove.errors import LedgerError, RunError

if TYPE_CHECKING:
    from .conftest import Key, Run


def test_a_reopened_ledger_holds_the_entries_that_append_returned(run: Run) -> None:
    with run.open() as ledger:
        appended = ledger.append("score", {"skill": 4.0, "seeds": (1, 2), "flops": 2**62})
    assert appended.body == {"skill": 4, "seeds": [1, 2], "flops": 2**62}
    assert read(run.ledger, run.anchor)[-1] == appended
    with run.open() as ledger:
        assert ledger.entries[-1] == appended


def test_the_first_entry_states_the_public_key(run: Run, key: Key) -> None:
    assert read(run.ledger)[0].body["public_key"] == key.public_key_hex


def test_every_append_is_one_line_that_is_anchored_when_it_returns(run: Run) -> None:
    with run.open() as ledger:
        entry = ledger.append("note", {})
        record = run.anchor.read("r1")
        assert record is not None
        assert (record.count, record.head_hash) == (4, entry.hash)
        assert run.ledger.read_bytes().endswith(b"\n" + encode(entry))


def test_the_time_of_an_entry_is_utc_with_microseconds() -> None:
    assert len(utc_now()) == len("2026-01-01T00:00:00.000000Z")
    assert utc_now().endswith("Z")


def test_reading_changes_nothing(run: Run) -> None:
    with run.ledger.open("ab") as file:
        file.write(b'{"body":{"text"')
    before = run.ledger.read_bytes()
    assert len(read(run.ledger, run.anchor)) == 3
    assert run.ledger.read_bytes() == before
    assert [path.name for path in run.folder.iterdir()] == ["ledger.jsonl"]


class TestOpening:
    def test_a_missing_ledger_is_a_user_error_that_names_it(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="nowhere"):
            Ledger.open(tmp_path / "nowhere", run.key, run.anchor)

    def test_a_link_is_not_followed(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(run.ledger)
        with pytest.raises(RunError, match="link"):
            Ledger.open(tmp_path / "link", run.key, run.anchor)

    def test_a_ledger_without_an_entry_says_to_start_a_new_run(self, run: Run) -> None:
        run.ledger.write_bytes(b"")
        with pytest.raises(RunError, match="start a new run"):
            run.open()

    def test_a_second_writer_is_refused(self, run: Run) -> None:
        with run.open(), pytest.raises(RunError, match="another process"):
            run.open()

    def test_a_refused_opening_leaves_the_lock_free(self, run: Run, stranger: Key) -> None:
        with pytest.raises(LedgerError):
            Ledger.open(run.ledger, stranger, run.anchor)
        run.open().close()

    def test_another_key_is_refused(self, run: Run, stranger: Key) -> None:
        with pytest.raises(LedgerError, match="with key"):
            Ledger.open(run.ledger, stranger, run.anchor)

    def test_a_changed_byte_is_named_by_line(self, run: Run) -> None:
        data = run.ledger.read_bytes()
        run.ledger.write_bytes(data.replace(b"one", b"six"))
        with pytest.raises(LedgerError, match=r"ledger\.jsonl line 2: .*the hash is not"):
            run.open()

    def test_a_line_taken_out_is_named(self, run: Run) -> None:
        lines = run.ledger.read_bytes().splitlines(keepends=True)
        run.ledger.write_bytes(lines[0] + lines[2])
        with pytest.raises(LedgerError, match="line 2: index 2 where 1 belongs"):
            run.open()

    @pytest.mark.parametrize("kept", [1, 2])
    def test_a_ledger_behind_its_anchor_is_refused(self, run: Run, kept: int) -> None:
        lines = run.ledger.read_bytes().splitlines(keepends=True)
        run.ledger.write_bytes(b"".join(lines[:kept]))
        with pytest.raises(LedgerError, match=f"{kept} whole entries where 3 were anchored"):
            run.open()

    def test_a_ledger_beside_its_anchor_is_refused(self, run: Run) -> None:
        fork = run.ledger.read_bytes().splitlines(keepends=True)[:2]
        with run.open() as ledger:
            real = ledger.entries
        run.ledger.write_bytes(b"".join(fork))
        with Ledger.open(run.ledger, run.key, None, clock=lambda: "later") as ledger:
            ledger.append("note", {"text": "another past"})
        assert len(real) == 3
        with pytest.raises(LedgerError, match="entry 2 is not the anchored one"):
            run.open()

    def test_a_rewrite_under_another_key_is_refused(self, run: Run, stranger: Key) -> None:
        run.ledger.unlink()
        body = {"run_id": "r1", "seed_genome": {}}
        Ledger.create(run.ledger, stranger, None, body).close()
        with pytest.raises(LedgerError, match="signature does not verify"):
            Ledger.open(run.ledger, stranger, run.anchor)

    def test_a_ledger_ahead_of_its_anchor_is_what_a_crash_between_the_two_leaves(self, run: Run) -> None:
        with Ledger.open(run.ledger, run.key, None) as ledger:
            ledger.append("note", {"text": "three"})
        with run.open() as ledger:
            assert len(ledger.entries) == 4
        record = run.anchor.read("r1")
        assert record is not None
        assert record.count == 4

    def test_a_copy_without_its_anchor_opens_and_is_anchored_anew(self, run: Run, tmp_path: Path) -> None:
        elsewhere = FileAnchor(tmp_path / "other state")
        Ledger.open(run.ledger, run.key, elsewhere).close()
        record = elsewhere.read("r1")
        assert record is not None
        assert record.count == 3


class TestTornLines:
    def test_every_tear_of_an_append_is_set_aside_and_recorded(self, run: Run, tmp_path: Path) -> None:
        whole = run.ledger.read_bytes()
        with Ledger.open(run.ledger, run.key, None) as ledger:
            line = encode(ledger.append("note", {"text": "threeé"}))
        for cut in range(1, len(line)):
            run.ledger.write_bytes(whole + line[:cut])
            with Ledger.open(run.ledger, run.key, None) as ledger:
                assert [entry.kind for entry in ledger.entries] == ["run", "note", "note", "recovery"], cut
                body = ledger.entries[-1].body
            kept = (run.folder / body["path"]).read_bytes()
            assert kept == line[:cut]
            assert body["sha256"] == hashlib.sha256(kept).hexdigest()

    def test_zeros_left_by_a_power_cut_are_a_tear(self, run: Run) -> None:
        with run.ledger.open("ab") as file:
            file.write(b'{"bo' + bytes(100))
        with run.open() as ledger:
            assert ledger.entries[-1].kind == "recovery"

    @pytest.mark.parametrize("byte", [b"}", b" ", b"\0", b"\r", b"x", b"\xff"])
    def test_a_changed_final_newline_is_tampering_even_without_an_anchor(self, run: Run, byte: bytes) -> None:
        run.ledger.write_bytes(run.ledger.read_bytes()[:-1] + byte)
        with pytest.raises(LedgerError, match="line 3: its end was changed"):
            Ledger.open(run.ledger, run.key, None)

    def test_a_torn_line_that_the_anchor_counts_is_tampering(self, run: Run) -> None:
        run.ledger.write_bytes(run.ledger.read_bytes()[:-1])
        with pytest.raises(LedgerError, match="2 whole entries where 3 were anchored"):
            run.open()

    def test_a_tail_that_no_append_begins_with_is_tampering(self, run: Run) -> None:
        with run.ledger.open("ab") as file:
            file.write(b"hello")
        with pytest.raises(LedgerError, match="line 4"):
            run.open()

    def test_a_crash_between_cutting_off_and_recording_is_made_up_for(self, run: Run) -> None:
        part = run.folder / "recovered" / "ledger-3.part"
        part.parent.mkdir()
        part.write_bytes(b'{"body"')
        with run.open() as ledger:
            assert ledger.entries[-1].body["path"] == "recovered/ledger-3.part"
        with run.open() as ledger:
            assert len(ledger.entries) == 4


class TestCreating:
    def test_an_existing_file_is_never_overwritten(self, run: Run) -> None:
        with pytest.raises(RunError, match="exists"):
            Ledger.create(run.ledger, run.key, None, {"run_id": "r2"})

    def test_a_run_id_that_is_anchored_already_is_refused(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="another run id"):
            Ledger.create(tmp_path / "again.jsonl", run.key, run.anchor, {"run_id": "r1"})

    @pytest.mark.parametrize("run_id", [None, "", "../up", "a/b", ".hidden", 7, "x" * 200, "a\n"])
    def test_a_run_id_that_cannot_name_a_file_is_refused(self, run: Run, tmp_path: Path, run_id: Any) -> None:
        with pytest.raises(LedgerError, match="run_id"):
            Ledger.create(tmp_path / "new.jsonl", run.key, run.anchor, {"run_id": run_id})

    def test_a_body_that_cannot_be_written_leaves_no_file(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match=r"limits\.flops"):
            Ledger.create(tmp_path / "new.jsonl", run.key, None, {"run_id": "n", "limits": {"flops": math.inf}})
        assert not (tmp_path / "new.jsonl").exists()


class TestRefusedAppends:
    def test_a_number_that_is_not_finite_changes_nothing(self, run: Run) -> None:
        before = run.ledger.read_bytes()
        with run.open() as ledger:
            with pytest.raises(LedgerError, match=r"tasks\.recall.*nan"):
                ledger.append("score", {"tasks": {"recall": math.nan}})
            assert len(ledger.entries) == 3
        assert run.ledger.read_bytes() == before

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("call", ["write", "fdatasync"])
    def test_a_full_disk_cuts_back_to_whole_lines_and_says_what_to_do(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, call: str, code: int
    ) -> None:
        before = run.ledger.read_bytes()

        def refuse(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        with run.open() as ledger:
            with monkeypatch.context() as patch:
                patch.setattr(ledger_module.os, call, refuse)
                with pytest.raises(RunError, match="disk is full: free space"):
                    ledger.append("note", {})
            assert run.ledger.read_bytes() == before
            assert ledger.append("note", {}).index == 3

    def test_a_half_written_line_is_cut_off(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        before, real = run.ledger.read_bytes(), os.write
        with run.open() as ledger:
            monkeypatch.setattr(ledger_module.os, "write", lambda descriptor, data: real(descriptor, data[:20]))
            with pytest.raises(RunError, match="disk is full"):
                ledger.append("note", {})
        assert run.ledger.read_bytes() == before

    def test_an_anchor_that_cannot_be_written_stops_the_run_and_not_the_ledger(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise RunError("write", "anchor")

        with run.open() as ledger, monkeypatch.context() as patch:
            patch.setattr(anchor_module, "write_atomic", refuse)
            with pytest.raises(RunError):
                ledger.append("note", {})
        with run.open() as ledger:
            assert len(ledger.entries) == 4

    def test_bytes_that_something_else_wrote_stop_the_writer(self, run: Run) -> None:
        with run.open() as ledger:
            with run.ledger.open("ab") as file:
                file.write(b"x")
            with pytest.raises(LedgerError, match="one writer"):
                ledger.append("note", {})

    def test_a_closed_ledger_takes_no_more(self, run: Run) -> None:
        ledger = run.open()
        ledger.close()
        ledger.close()
        with pytest.raises(LedgerError, match="an open ledger"):
            ledger.append("note", {})


class TestAnchors:
    def test_only_the_owner_can_read_an_anchor(self, run: Run) -> None:
        path = run.anchor.path("r1")
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_an_unknown_run_has_no_anchor(self, run: Run) -> None:
        assert run.anchor.read("nobody") is None

    @pytest.mark.parametrize("run_id", ["../r1", "a/b", ""])
    def test_a_run_id_cannot_leave_the_anchor_folder(self, run: Run, run_id: str) -> None:
        with pytest.raises(LedgerError, match="anchor a run"):
            run.anchor.read(run_id)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_id":"r1"}', "null", "\udcff"])
    def test_a_damaged_anchor_is_named(self, run: Run, text: str) -> None:
        run.anchor.path("r1").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(LedgerError, match="read"):
            run.anchor.read("r1")

    def test_every_changed_byte_of_an_anchor_is_noticed(self, run: Run) -> None:
        path = run.anchor.path("r1")
        data = path.read_bytes()
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 1
            path.write_bytes(changed)
            with pytest.raises(LedgerError):
                run.open()

    def test_an_anchor_of_another_run_is_not_taken(self, run: Run) -> None:
        shutil.copy(run.anchor.path("r1"), run.anchor.path("r2"))
        with pytest.raises(LedgerError, match="an unchanged anchor of run r2"):
            run.anchor.read("r2")


def test_a_writer_killed_at_any_moment_leaves_a_ledger_that_opens(run: Run, tmp_path: Path) -> None:
    script = """
import sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pathlib import Path
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.ledger import Ledger
private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
class Key:
    public_key_hex = private.public_key().public_bytes_raw().hex()
    sign = staticmethod(private.sign)
ledger = Ledger.open(Path(sys.argv[1]), Key(), FileAnchor(Path(sys.argv[2])))
print("ready", flush=True)
while True:
    ledger.append("note", {"text": "x" * 20000})
"""
    for kill_after in (0.003, 0.01, 0.02, 0.04):
        command = [sys.executable, "-c", script, str(run.ledger), str(tmp_path / "state")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(kill_after)
            writer.kill()
        with run.open() as ledger:
            ledger.append("note", {"text": "resumed"})
    kinds = {entry.kind for entry in read(run.ledger, run.anchor)}
    assert kinds <= {"run", "note", "recovery"}


def test_a_ledger_cut_off_before_its_first_entry_is_no_ledger_and_can_be_created_again(
    tmp_path: Path, key: Key, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_write", die)
        with pytest.raises(KeyboardInterrupt):
            Ledger.create(path, key, anchor, {"run_id": "r"})
    assert not path.exists()
    with Ledger.create(path, key, anchor, {"run_id": "r"}):
        assert [entry.kind for entry in read(path, anchor)] == ["run"]


def test_a_writer_waits_for_a_reader_that_asks_whether_the_run_is_under_way(run: Run) -> None:
    asking = os.open(run.ledger, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, (asking,)).start()
    with run.open() as ledger:
        assert len(ledger.entries) == 3


def test_a_ledger_is_json_lines_that_any_reader_can_read(run: Run) -> None:
    lines = run.ledger.read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]
