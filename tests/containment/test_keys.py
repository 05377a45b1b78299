"""The signing key: made once, readable by its user alone, outside the run folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfimprove.containment.keys import KEY_FILE, SigningKey, state_dir
from selfimprove.errors import RunError


def test_the_key_is_made_on_first_use_and_then_stays(tmp_path: Path) -> None:
    first = SigningKey.load(tmp_path / "state")
    assert SigningKey.load(tmp_path / "state").public_key_hex == first.public_key_hex


def test_only_its_user_can_read_the_key(tmp_path: Path) -> None:
    SigningKey.load(tmp_path)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [KEY_FILE]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SigningKey.load(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(RunError, match="chmod 600"):
        SigningKey.load(tmp_path)


def test_a_key_behind_a_link_is_refused(tmp_path: Path) -> None:
    SigningKey.load(tmp_path / "real")
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "real" / KEY_FILE)
    with pytest.raises(RunError, match="read the signing key"):
        SigningKey.load(tmp_path)


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31])
def test_a_file_that_holds_no_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text(text)
    (tmp_path / KEY_FILE).chmod(0o600)
    with pytest.raises(RunError, match="32 bytes"):
        SigningKey.load(tmp_path)


def test_the_key_does_not_show_in_a_print(tmp_path: Path) -> None:
    key = SigningKey.load(tmp_path)
    assert (tmp_path / KEY_FILE).read_text().strip() not in f"{key!r} {key}"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SELFIMPROVE_STATE_DIR": "/a"}, "/a"),
        ({"XDG_STATE_HOME": "/b"}, "/b/selfimprove"),
        ({"XDG_STATE_HOME": "relative"}, "/home/me/.local/state/selfimprove"),
        ({}, "/home/me/.local/state/selfimprove"),
    ],
)
def test_the_state_folder_follows_the_environment(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SELFIMPROVE_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | variables).items():
        monkeypatch.setenv(name, value)
    assert state_dir() == Path(expected)
