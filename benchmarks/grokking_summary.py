"""What a grokking study found, beside the figures of Nanda et al. 2023 (arXiv 2301.05217).

Made from what is in the folder, again and again: curves of every training, and where there are its final weights, a
reading of them by `interp.addition`. Where there are none, the curves' last line stands for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from interp.addition import answers, equation
from interp.checkpoint import load_model
from interp.spectra import Progress, Spectrum, progress, spectrum, sum_spectrum
from selfimprove.genome.genome import Genome

LEARNT = 0.99  # accuracy
LINES = {
    "training": "train_loss",
    "test": "test_loss",
    "restricted, all pairs": "restricted_all",
    "excluded, training": "excluded_train",
}
NO_WEIGHTS = (
    "Read from curves: the final weights were not kept. The losses are those of the frequencies that were found at the"
    " end of training, by a rule that missed some; others can no longer be told."
)
PAPER: Mapping[str, Any] = {
    "modulus": 113,
    "fraction": 0.3,
    "steps": 40_000,
    "key": [14, 35, 41, 42, 52],
    "key_other_seeds": "3 or 4",
    "embedding_frequencies": 6,
    "full_all": 2.41e-7,
    "restricted_all": 5.54e-8,
    "explained": 0.95,
    "memorized": 1_400,
    "grokked": "9,400 to 14,000",
    "sources": {
        "key, embedding_frequencies": "section 4.1",
        "key_other_seeds": "appendix C.2.1",
        "full_all, restricted_all": "section 4.4: activations restricted to cos(w(a+b)) and sin(w(a+b)); all pairs",
        "explained": "section 4.2: of the logits' variance, by one multiple of cos(w(a+b-c)) a frequency",
        "memorized, grokked": "section 5.2: end of memorization; cleanup, in which test loss falls",
    },
}


def write_summary(
    folder: Path, *, genome: Genome, trained: Callable[[dict[str, Any]], Bool[Tensor, "p p"]], plot: bool
) -> str:
    """Write ``summary.json``, ``summary.md`` and, if asked for, ``grokking.svg``; returns the table.

    Args:
        folder: of the study.
        genome: of the final weights.
        trained: from the setting of a training to the pairs that it trained on.
        plot: draw the curves; needs matplotlib.
    """
    curves = {path.stem.removeprefix("curves-"): read_curves(path) for path in sorted(folder.glob("curves-*.jsonl"))}
    runs = []
    for name, (about, rows) in curves.items():
        weights = folder / f"weights-{name}.safetensors"
        final = _from_curves(rows[-1])
        if weights.exists():
            spectra, measured = read(
                weights.read_bytes(), genome, about["setting"]["modulus"], trained(about["setting"])
            )
            final = _from_weights(spectra, measured)
        runs.append({"name": name, **about, **_when(rows), **final})
    summary = {"paper": PAPER, "runs": runs}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    text = table(summary)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    if plot:
        draw({name: rows for name, (_, rows) in curves.items()}, folder / "grokking.svg")
    return text


def read_curves(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a file of curves says of its training, and its lines."""
    about, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return about, rows


def read(
    data: bytes, genome: Genome, modulus: int, trained: Bool[Tensor, "p p"]
) -> tuple[dict[str, Spectrum], Progress]:
    """Spectra of a final network's embedding and logits, and losses with only and without its key frequencies."""
    model = load_model(data, genome, vocab_size=modulus + 1, context=3)
    logits = answers(model, equation(modulus))
    spectra = {"embedding": spectrum(model.W_E[:modulus]), "logits": sum_spectrum(logits)}
    return spectra, progress(logits, spectra["logits"].key, trained)


def _when(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """First steps that were read with an accuracy of at least `LEARNT`, and what else only curves know."""

    def first(accuracy: str) -> int | None:
        return next((row["step"] for row in rows if row[accuracy] >= LEARNT), None)

    return {
        "memorized": first("train_accuracy"),
        "grokked": first("test_accuracy"),
        "test_accuracy": rows[-1]["test_accuracy"],
        "embedding_gini": [rows[0]["embedding_gini"], rows[-1]["embedding_gini"]],
        "squared_weights": [rows[0]["squared_weights"], rows[-1]["squared_weights"]],
    }


def _from_curves(last: dict[str, Any]) -> dict[str, Any]:
    others = {name: last[name] for name in last if name.partition("_")[0] in ("restricted", "excluded")}
    others.pop("restricted_to")
    losses = {"full_train": last["train_loss"], "full_test": last["test_loss"], **others}
    return {
        "read_from": "curves",
        "key": None,
        "embedding_key": None,
        "restricted_to": last["restricted_to"],
        "explained": last["explained"],
        "losses": losses,
    }


def _from_weights(spectra: Mapping[str, Spectrum], measured: Progress) -> dict[str, Any]:
    return {
        "read_from": "weights",
        "key": list(measured.frequencies),
        "embedding_key": list(spectra["embedding"].key),
        "restricted_to": list(measured.frequencies),
        "shares": {name: {k: round(one.share[k - 1], 4) for k in one.key} for name, one in spectra.items()},
        "explained": measured.explained,
        "losses": dict(measured.losses),
    }


def table(summary: Mapping[str, Any]) -> str:
    """The figures of every training beside the paper's, in Markdown."""
    paper, runs = summary["paper"], summary["runs"]

    def number(value: Any) -> str:
        return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    def listed(values: Sequence[int] | None) -> str:
        return "" if values is None else f"{len(values)}: {', '.join(map(str, values))}"

    def row(what: str, theirs: Any, ours: Callable[[dict[str, Any]], Any]) -> str:
        return f"| {what} | {number(theirs)} | {' | '.join(number(ours(run)) for run in runs)} |"

    def loss(name: str) -> Callable[[dict[str, Any]], Any]:
        return lambda run: run["losses"].get(name)

    def setting(name: str) -> Callable[[dict[str, Any]], Any]:
        return lambda run: run["setting"][name]

    lines = [
        f"| | Nanda et al. 2023 | {' | '.join(run['name'] for run in runs)} |",
        f"|---|---|{'---|' * len(runs)}",
        row("modulus", paper["modulus"], setting("modulus")),
        row("training part of the pairs", paper["fraction"], setting("fraction")),
        row("steps", paper["steps"], setting("steps")),
        row("training pairs memorized by step", paper["memorized"], lambda run: run["memorized"]),
        row("test accuracy 0.99 by step", f"{paper['grokked']} (test loss falls)", lambda run: run["grokked"]),
        row("final test accuracy", None, lambda run: run["test_accuracy"]),
        row("key frequencies", listed(paper["key"]), lambda run: listed(run["key"])),
        row("of the embedding", paper["embedding_frequencies"], lambda run: listed(run["embedding_key"])),
        row("losses are restricted to, or exclude", "the key ones", lambda run: listed(run["restricted_to"])),
        row("variance of the logits explained", paper["explained"], lambda run: run["explained"]),
        row("loss of all pairs", paper["full_all"], loss("full_all")),
        row("restricted loss of all pairs", paper["restricted_all"], loss("restricted_all")),
        row("test loss", None, loss("full_test")),
        row("restricted test loss", None, loss("restricted_test")),
        row("training loss", None, loss("full_train")),
        row("excluded training loss", None, loss("excluded_train")),
        row("read from", None, lambda run: run["read_from"]),
    ]
    if any(run["read_from"] == "curves" for run in runs):
        lines += ["", NO_WEIGHTS]
    return "\n".join(lines) + "\n"


def draw(curves: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Losses of every training, with only and without the key frequencies of its final network, as an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "grokking"  # the same figures, the same file
    from matplotlib import pyplot

    columns = 2 if len(curves) > 1 else 1
    figure, panels = pyplot.subplots(
        -(-len(curves) // columns),
        columns,
        figsize=(5.5 * columns, 7),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    for panel, (name, rows) in zip(panels.flat, curves.items(), strict=False):
        for label, key in LINES.items():
            known = [row for row in rows if key in row]
            panel.plot([row["step"] for row in known], [row[key] for row in known], label=label, linewidth=1)
        chosen = ", ".join(map(str, rows[-1]["restricted_to"]))
        panel.set(
            title=f"Losses of {name}; frequencies {chosen}",
            xlabel="step",
            ylabel="cross-entropy (nats)",
            yscale="log",
        )
    panels[0, 0].legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
