"""No key, credential or ledger handle is in a worker's memory, environment or descriptors: looked for from inside."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.ledger import LEDGER_NAME, Ledger
from selfimprove.containment.keys import KEY_FILE, SigningKey
from selfimprove.containment.redteam.arena import Arena
from selfimprove.containment.redteam.inmate import DATA, OUT
from selfimprove.containment.redteam.runner import INMATE, LIMITS, TRAINING, TRAINING_ENTRIES
from selfimprove.containment.redteam.target import Target, halves
from selfimprove.containment.sandbox.backend import LockdownBackend, ZygoteSpec
from selfimprove.containment.supervisor import Completed, Job, JobLimits, Supervisor

pytestmark = pytest.mark.timeout(600)
SEARCHES = ("read/own_memory", "read/own_environment", "handles/inherited")
VARIABLES = ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN")


class Lair:
    """A supervisor with everything to hide, as in a run: its key, an open ledger, credentials in the environment."""

    def __init__(self, folder: Path, credential: str) -> None:
        self.folder = folder
        self.key = SigningKey.load(folder / "state")
        self.ledger = Ledger.create(folder / LEDGER_NAME, self.key, FileAnchor(folder / "state"), {"run_id": "hidden"})
        os.set_inheritable(self.ledger._descriptor, True)  # even if somebody forgot
        self.private = bytes.fromhex((folder / "state" / KEY_FILE).read_text())
        self.credential = credential.encode()
        zygotes = {TRAINING: ZygoteSpec((*TRAINING_ENTRIES, INMATE))}
        self.supervisor = Supervisor(
            zygotes, backend=LockdownBackend(), workers=1, halt_file=None, should_stop=lambda: False
        )
        self._searches = 0

    def search(self, attack: str, secret: bytes, **planted: Any) -> bool:
        """Let a worker look for a secret of which it knows two halves; true if it found the whole."""
        self._searches += 1
        folder = self.folder / str(self._searches)
        folder.mkdir()
        arena = Arena(folder, listening=False)
        payload = {"attack": attack, "secret": halves(secret), **arena.to_job(), **Target(os.getpid(), 0, 0).to_job()}
        limits = JobLimits(**LIMITS)  # type: ignore[arg-type]
        job = Job(attack, TRAINING, INMATE, payload | planted, {DATA: arena.data}, (OUT,), limits)
        [(_, outcome)] = self.supervisor.run([job])
        assert isinstance(outcome, Completed), outcome
        return bool(outcome.result["escaped"])


@pytest.fixture(scope="module")
def lair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lair]:
    credential = secrets.token_hex(20)
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.setenv(name, credential)
        found = Lair(tmp_path_factory.mktemp("lair"), credential)
        with found.supervisor:
            yield found
        found.ledger.close()


@pytest.mark.parametrize("search", SEARCHES)
def test_the_signing_key_is_nowhere_in_a_worker(search: str, lair: Lair) -> None:
    assert not lair.search(search, lair.private)


@pytest.mark.parametrize("search", SEARCHES)
def test_credentials_are_nowhere_in_a_worker(search: str, lair: Lair) -> None:
    assert not lair.search(search, lair.credential)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_ledger_is_nowhere_in_a_worker(search: str, lair: Lair) -> None:
    assert not lair.search(search, lair.ledger.entries[0].signature.encode())


def test_the_search_finds_a_key_that_is_in_the_memory(lair: Lair) -> None:
    assert lair.search("read/own_memory", lair.private, careless=lair.private.hex())
