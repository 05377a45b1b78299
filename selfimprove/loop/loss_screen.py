"""The screen of losses, as the loop asks it: in a contained worker, whose answer is not trusted to have its form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfimprove.containment.supervisor import Completed, Job
from selfimprove.loop.slots import Bench, describe
from selfimprove.seeds import derive
from selfimprove.training.protocol import ENTRY, screen_job


def screen_losses(bench: Bench, key: str, texts: Sequence[str]) -> dict[str, Any]:
    """The verdict by text: ``ok``, ``reason``, ``fingerprint``.

    Where the worker fails on several, each is screened alone, so that one costs only itself.
    """
    payload = screen_job({str(i): text for i, text in enumerate(texts)}, derive(bench.config.seed, "screen"))
    outcome = bench.run_one(Job(key, "torch", ENTRY, payload, {}, (), bench.limits()))
    if isinstance(outcome, Completed):
        return {text: _verdict(outcome.result.get("results"), i) for i, text in enumerate(texts)}
    if len(texts) == 1:
        return {texts[0]: _verdict({"0": {"reason": describe(outcome)[1]}}, 0)}
    alone = [screen_losses(bench, f"{key}/{i}", [text]) for i, text in enumerate(texts)]
    return {text: verdict for verdicts in alone for text, verdict in verdicts.items()}


def _verdict(answer: object, number: int) -> dict[str, Any]:
    found = answer.get(str(number)) if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        found = {"reason": "the screen gave no verdict"}
    ok, fingerprint = found.get("ok") is True, str(found.get("fingerprint", ""))[:64]
    return {"ok": ok, "reason": str(found.get("reason", ""))[:500], "fingerprint": fingerprint}
