"""The controller through a run, as the loop read it at the end of each generation, beside its rate of denied proposals.

From the ledger alone: no model is loaded. What is drawn from a controller after generation ``n`` foretells the
proposals of generation ``n + 1``, which it makes; the two stand in one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import plotting
from interp.runs import ledger
from interp.verdict import NotApplicable
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FATES = ("denied", "refused", "forbidden", "over_caps")


@dataclass(frozen=True)
class ControllerHistory:
    """One row a controller.

    Attributes:
        generations: after which each stood.
        readings: its ``controller_inspection`` record.
        made: what became of the proposals that it made, in the generation after; None for the last one.
    """

    generations: tuple[int, ...]
    readings: tuple[dict[str, Any], ...]
    made: tuple[dict[str, int] | None, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a controller.

        ``sampled_denied`` with ``low`` and ``high`` (95 % Wilson): share of the proposals drawn from it that the policy
        would deny for their price. ``denied``, ``refused``, ``forbidden``, ``over_caps``: shares of the ``proposals``
        that it made. ``probe_*``: accuracy at the last layer. What was not read is missing.
        """
        import pandas

        rows = []
        for n, reading, made in zip(self.generations, self.readings, self.made, strict=True):
            row: dict[str, Any] = {"generation": n, "verdict": reading["verdict"]}
            if reading["verdict"] == "read":
                denied = reading["sampled"]["denied"]
                row |= {"entropy": reading["entropy"], "outside_grammar": reading["outside_grammar"]}
                row |= {"sampled_denied": denied["kept"] / denied["n"], "low": denied["low"], "high": denied["high"]}
                row |= {"limit_share": reading["sampled"]["limit_share"]}
                row |= {f"probe_{name}": probe["accuracy"][-1] for name, probe in reading["probes"].items()}
            if made is not None and made["n"]:
                row |= {"proposals": made["n"]} | {name: made[name] / made["n"] for name in FATES}
            rows.append(row)
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Denied share of what was drawn, with its interval, and of what was proposed, by generation."""
        title, x = "Denied proposals of the controller", "generation after which it stood"
        ax = plotting.axes(ax, title=title, x=x, y="share of proposals")
        read = [(n, r["sampled"]) for n, r in zip(self.generations, self.readings, strict=True) if "sampled" in r]
        shares = [Proportion(**drawn["denied"]) for _, drawn in read]
        middle = [share.kept / share.n for share in shares]
        below = [m - share.low for m, share in zip(middle, shares, strict=True)]
        above = [share.high - m for m, share in zip(middle, shares, strict=True)]
        ax.errorbar([n for n, _ in read], middle, yerr=(below, above), fmt="o-", capsize=3, label="drawn, over a limit")
        fates = [(n, made) for n, made in zip(self.generations, self.made, strict=True) if made is not None]
        for name in ("denied", "over_caps"):
            found = [(n, made[name] / made["n"]) for n, made in fates if made["n"]]
            if found:
                ax.plot(*zip(*found, strict=True), "x--", label=f"proposed, {name.replace('_', ' ')}")
        ax.legend()
        return plotting.count_along_x(ax)


def controller_history(run_dir: str | Path) -> ControllerHistory:
    """What the loop read of a run's controllers.

    Raises:
        RunError: no such run.
        NotApplicable: none was read, as with a controller that is no model.
    """
    records = ledger(Path(run_dir))
    found = {body["generation"]: body for kind, body in records if kind == "controller_inspection"}
    if all(body["verdict"] == "not_applicable" for body in found.values()):
        reason = next((body["reason"] for body in found.values()), "no record")
        raise NotApplicable("history of the controller", reason, "a run whose controller is a model")
    order = tuple(sorted(found))
    made = tuple(found[n + 1]["proposals"] if n + 1 in found else None for n in order)
    return ControllerHistory(order, tuple(found[n] for n in order), made)
