"""What the page on one's own proposer says of outcomes and prices is what the loop does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from selfimprove.controller.proposer import Update
from selfimprove.loop.controlling import Controlling
from tests.docs.pages import DOCS

PAGE = (DOCS / "how-to" / "proposer.md").read_text()


@pytest.mark.parametrize(("skill", "gain"), [(0.6, 0.0), (0.45, -0.05)])
def test_a_candidate_that_its_confirmation_refuted_is_told_as_the_page_says(skill: float, gain: float) -> None:
    records: dict[str, Any] = {"score": {"skill": skill}, "reference": {"skill": 0.5}, "confirmation": {}}
    journal = SimpleNamespace(find=lambda kind, *place: records.get(kind))
    loop: Any = SimpleNamespace(_bench=SimpleNamespace(journal=journal))
    assert Controlling._outcome(loop, {"status": "new"}, (1, 0), {}) == ("same", pytest.approx(gain))
    assert "one that its confirmation refuted, as `same` with a gain of at most 0" in PAGE


def test_an_update_has_no_negative_price_and_charges_nothing() -> None:
    with pytest.raises(ValueError, match="flops: got -1; allowed: 0 or more"):
        Update(flops=-1)
    assert "The number in `Update` charges nothing" in PAGE
