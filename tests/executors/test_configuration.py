"""The executor's keys as a person types them."""

from __future__ import annotations

import pytest

from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from
from selfimprove.errors import ConfigError


def test_an_executor_is_one_word_and_local_is_the_default() -> None:
    assert settings_from(compose(["device=cpu"])).run.executor.kind == "local"
    for kind in ("slurm", "ray"):
        assert settings_from(compose(["device=cpu", f"executor={kind}"])).run.executor.kind == kind


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["executor=slrum"], "did you mean 'slurm'"),
        (["executor=slurm", "executor.partiton=x"], "did you mean 'executor.partition'"),
        (["executor=slurm", "executor.nodes=0"], "1 to 1000 nodes"),
        (["executor=slurm", "executor.silence_seconds=1"], "2 to 3600 seconds"),
        (["executor.kind=slrum"], "did you mean 'slurm'"),
    ],
)
def test_what_is_wrong_in_them_is_refused_with_a_remedy(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        settings_from(compose(["device=cpu", *overrides]))
    assert told in str(refusal.value)


def test_gpus_must_be_asked_for_where_nodes_train_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfimprove.app.settings.resolve_device", lambda device: "cuda")
    with pytest.raises(ConfigError, match=r"executor\.gpus"):
        settings_from(compose(["executor=slurm"]))
