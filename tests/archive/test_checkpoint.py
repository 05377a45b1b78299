from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load as library_load
from safetensors.numpy import load_file, save

from selfimprove.archive import files
from selfimprove.archive.checkpoint import HEADER_CAP, ingest, store, tensors_sha256
from selfimprove.errors import InvalidCheckpoint, LedgerError, RunError

SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 4), "b": (5,)}
PAYLOAD = np.arange(17, dtype="<f4").tobytes()
GOOD = {
    "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
    "b": {"dtype": "F32", "shape": [5], "data_offsets": [48, 68]},
}


def pack(header: Any, payload: bytes = PAYLOAD) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + payload


def changed(name: str, **fields: Any) -> bytes:
    return pack({**GOOD, name: {**GOOD[name], **fields}})


class TestWhatIsAccepted:
    def test_a_file_of_the_library_is_accepted(self) -> None:
        ingest(save({"a": np.ones((3, 4), np.float32), "b": np.arange(5, dtype=np.float32)}), SHAPES)

    def test_empty_metadata_and_padding_are_harmless(self) -> None:
        ingest(pack(json.dumps({**GOOD, "__metadata__": {}}).encode() + b"   "), SHAPES)

    def test_scalars_and_tensors_without_elements_are_tensors(self) -> None:
        tensors = {"scalar": np.array(2, np.float32), "empty": np.zeros((0, 4), np.float32)}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        ingest(save(tensors), shapes)

    def test_a_genome_without_tensors_has_an_empty_file(self) -> None:
        ingest(pack({}, b""), {})


HOSTILE: dict[str, bytes] = {
    "nothing at all": b"",
    "fewer than eight bytes": b"\x01\0\0\0",
    "a header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "a header of 2**64 - 1 bytes": b"\xff" * 8 + b"{}",
    "a header over the cap": pack(b"{" + b" " * HEADER_CAP + b"}"),
    "a pickle": b"\x80\x04\x95" + bytes(200),
    "a header that is an array": pack([1, 2]),
    "a header with a blank before it": pack(b" " + json.dumps(GOOD).encode()),
    "a header that is not UTF-8": pack(b'{"\xff":1}'),
    "a header with NaN": pack(b'{"a":NaN}'),
    "a header nested without end": pack(b'{"a":' + b"[" * 200_000 + b"}"),
    "an integer of 5000 digits": pack(b'{"a":' + b"9" * 5000 + b"}"),
    "one name twice": pack(json.dumps(GOOD)[:-1].encode() + b',"a":' + json.dumps(GOOD["a"]).encode() + b"}"),
    "a field twice": pack(json.dumps(GOOD).replace('"dtype": "F32",', '"dtype": "F32", "dtype": "F32",').encode()),
    "metadata": pack({**GOOD, "__metadata__": {"format": "pt"}}),
    "metadata that is a list": pack({**GOOD, "__metadata__": [1]}),
    "a missing tensor": pack({"a": {"dtype": "F32", "shape": [17], "data_offsets": [0, 68]}}),
    "an extra tensor": pack({**GOOD, "c": {"dtype": "F32", "shape": [0], "data_offsets": [68, 68]}}),
    "another name": pack({"a": GOOD["a"], "B": GOOD["b"]}),
    "a name with a line break": pack({"a": GOOD["a"], "b\n": GOOD["b"]}),
    "a name that no UTF-8 can hold": pack(json.dumps({"a": GOOD["a"], "\ud800": GOOD["b"]}).encode()),
    "half precision": changed("a", dtype="F16"),
    "integers": changed("a", dtype="I32"),
    "a dtype that is no text": changed("a", dtype=["F32"]),
    "another shape of as many elements": changed("a", shape=[4, 3]),
    "a flat shape": changed("a", shape=[12]),
    "a negative size": changed("a", shape=[-3, -4]),
    "a size that is a boolean": changed("b", shape=[5, True]),
    "a size that is a float": changed("b", shape=[5.0]),
    "a shape that is no list": changed("b", shape=5),
    "sizes that overflow": changed("a", shape=[2**40, 2**40]),
    "a thousand dimensions": changed("b", shape=[5] + [1] * 1000),
    "three offsets": changed("b", data_offsets=[48, 60, 68]),
    "overlapping tensors": changed("b", data_offsets=[40, 60]),
    "a gap between tensors": pack({**GOOD, "b": {**GOOD["b"], "data_offsets": [52, 72]}}, PAYLOAD + bytes(4)),
    "offsets backwards": changed("b", data_offsets=[68, 48]),
    "offsets beyond the file": pack(GOOD, PAYLOAD[:-4]),
    "bytes after the last tensor": pack(GOOD, PAYLOAD + b"x"),
    "a field too many": changed("a", extra=1),
    "a tensor that is a number": pack({**GOOD, "a": 7}),
    "not a number": pack(GOOD, PAYLOAD[:-4] + struct.pack("<f", float("nan"))),
    "infinity": pack(GOOD, struct.pack("<f", float("-inf")) + PAYLOAD[4:]),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidCheckpoint):
        ingest(data, SHAPES)


def test_a_file_larger_than_the_genome_allows_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidCheckpoint, match="at most"):
        ingest(bytes(8 + HEADER_CAP + 68 + 1), SHAPES)


def test_a_message_names_the_tensor_and_how_much_of_it_is_wrong() -> None:
    with pytest.raises(InvalidCheckpoint, match="tensor b: got 2 values that are not finite"):
        ingest(pack(GOOD, PAYLOAD[:-8] + struct.pack("<2f", float("nan"), float("inf"))), SHAPES)


def test_a_message_never_carries_a_hostile_name_at_length() -> None:
    header = {**GOOD, "\x1b[2J" + "x" * 10_000: GOOD["a"]}
    with pytest.raises(InvalidCheckpoint) as caught:
        ingest(pack(header), SHAPES)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def only_invalid(act: Callable[[], object]) -> None:
    """Run ``act``; nothing but :class:`InvalidCheckpoint` may come out of it."""
    with contextlib.suppress(InvalidCheckpoint):
        act()


@given(st.binary(max_size=300))
def test_garbage_raises_nothing_but_invalid_checkpoint(data: bytes) -> None:
    only_invalid(lambda: ingest(data, SHAPES))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.sampled_from(["a", "b", "c", "__metadata__"]), json_values)
@example("a", {"dtype": "F32", "shape": [], "data_offsets": [0, 4]})
def test_any_json_in_the_header_raises_nothing_but_invalid_checkpoint(name: str, value: object) -> None:
    only_invalid(lambda: ingest(pack({**GOOD, name: value}), SHAPES))
    only_invalid(lambda: tensors_sha256(pack({**GOOD, name: value})))


@given(st.integers(0, len(pack(GOOD)) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_is_another_finite_tensor(position: int, mask: int) -> None:
    data = bytearray(pack(GOOD))
    data[position] ^= mask
    try:
        ingest(bytes(data), SHAPES)
    except InvalidCheckpoint:
        return
    found = library_load(bytes(data))
    assert {name: array.shape for name, array in found.items()} == SHAPES
    assert all(np.isfinite(array).all() for array in found.values())


class TestTensorsHash:
    def test_it_is_independent_of_how_the_file_orders_its_tensors(self) -> None:
        a, b = PAYLOAD[:48], PAYLOAD[48:]
        swapped = {
            "b": {"shape": [5], "data_offsets": [0, 20], "dtype": "F32"},
            "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [20, 68]},
        }
        assert tensors_sha256(pack(GOOD, a + b)) == tensors_sha256(pack(swapped, b + a))

    @pytest.mark.parametrize(
        "other",
        [pack(GOOD, PAYLOAD[:-1] + b"\x01"), changed("a", shape=[4, 3]), pack({"a": GOOD["a"], "c": GOOD["b"]})],
        ids=["bytes", "shape", "name"],
    )
    def test_it_changes_with_every_tensor(self, other: bytes) -> None:
        assert tensors_sha256(other) != tensors_sha256(pack(GOOD))


class TestStoring:
    def test_a_stored_checkpoint_loads_and_its_manifest_names_its_hashes(self, tmp_path: Path) -> None:
        data = pack(GOOD)
        stored = store(tmp_path / "deep" / "er", "g001.c05", data, {"genome_sha256": "x", "seed": 2**62})
        assert stored.path.name == "g001.c05.safetensors"
        assert stored.manifest.name == "g001.c05.json"
        np.testing.assert_array_equal(load_file(stored.path)["b"], np.arange(12, 17, dtype=np.float32))
        text = stored.manifest.read_bytes()
        assert hashlib.sha256(text).hexdigest() == stored.manifest_sha256
        manifest = json.loads(text)
        assert manifest["weights_sha256"] == stored.sha256 == hashlib.sha256(data).hexdigest()
        assert manifest["tensors_sha256"] == tensors_sha256(data)
        assert (manifest["genome_sha256"], manifest["seed"], manifest["bytes"]) == ("x", 2**62, len(data))

    def test_three_values_are_enough_to_record_it(self, tmp_path: Path) -> None:
        path, sha256, manifest_sha256 = store(tmp_path, "x", pack(GOOD), {})
        assert path.is_file()
        assert len(sha256) == len(manifest_sha256) == 64

    def test_storing_again_replaces_both_files(self, tmp_path: Path) -> None:
        store(tmp_path, "x", pack(GOOD), {"try": 1})
        stored = store(tmp_path, "x", pack(GOOD, bytes(68)), {"try": 2})
        assert json.loads(stored.manifest.read_bytes())["try"] == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.safetensors"]

    @pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "x\0"])
    def test_a_name_cannot_leave_the_folder(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(LedgerError, match="store a checkpoint named"):
            store(tmp_path, name, pack(GOOD), {})

    def test_a_manifest_that_contradicts_the_data_is_a_bug(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="weights_sha256"):
            store(tmp_path, "x", pack(GOOD), {"weights_sha256": "another"})

    def test_a_full_disk_leaves_the_old_files_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = store(tmp_path, "x", pack(GOOD), {})

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "write", refuse)
            with pytest.raises(RunError, match="disk is full: free space"):
                store(tmp_path, "x", pack(GOOD, bytes(68)), {})
        assert hashlib.sha256(old.path.read_bytes()).hexdigest() == old.sha256
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.safetensors"]

    def test_a_link_in_the_place_of_the_temporary_file_is_not_written_through(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        (tmp_path / "x.safetensors.tmp").symlink_to(victim)
        with pytest.raises(RunError):
            store(tmp_path, "x", pack(GOOD), {})
        assert victim.read_text() == "precious"
