"""The signing key of this installation: one Ed25519 key in the user's state folder, for permits and ledger entries.

Only the supervisor's process ever reads it. Not covered: whoever can read the user's files can sign as the user.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from selfimprove.errors import RunError

KEY_FILE: Final = "signing.key"
_KEY_BYTES: Final = 32


def state_dir() -> Path:
    """Return the folder of keys and ledger anchors, outside any run folder.

    ``$SELFIMPROVE_STATE_DIR``, else ``$XDG_STATE_HOME/selfimprove``, else ``~/.local/state/selfimprove``.
    """
    chosen = os.environ.get("SELFIMPROVE_STATE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME")
    home = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    return home / "selfimprove"


@final
class SigningKey:
    """An Ed25519 key in memory."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public_key_hex = self._key.public_key().public_bytes_raw().hex()

    def __repr__(self) -> str:
        return f"SigningKey({self.public_key_hex[:12]}…)"

    def __reduce__(self) -> str:
        raise TypeError("a signing key does not leave its process")

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a fresh key that is stored nowhere."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def load(cls, folder: Path) -> SigningKey:
        """Read the key in ``folder``, making it on first use.

        Raises:
            RunError: the file is a link, belongs to someone else, others can read it, or it holds no key.
        """
        path = folder / KEY_FILE
        try:
            return cls(_read(path))
        except FileNotFoundError:
            _create(path)
        except OSError as error:
            raise RunError("read the signing key", str(path), "a readable file", f"system error: {error}") from error
        return cls(_read(path))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message."""
        return self._key.sign(message)


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise RunError(
                "read the signing key", str(path), "a file of this user that no other can read", f"chmod 600 {path}"
            )
        text = file.read(200)
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        remedy = "restore it from a copy; without it, ledgers signed with it cannot be continued"
        raise RunError("read the signing key", str(path), f"{_KEY_BYTES} bytes in hexadecimal", remedy)
    return key


def _create(path: Path) -> None:
    """Write a new key; if another process made one meanwhile, that one stays."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES).hex().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    except OSError as error:
        remedy = "set SELFIMPROVE_STATE_DIR to a folder that this user can write"
        raise RunError("create the signing key", str(path), "a writable state folder", f"{remedy} ({error})") from error
