"""What a run read at a step, as text, and which layers its gradient would move most."""

from pathlib import Path
from typing import Any

import torch

from nextword.base.errors import EvaluationError
from nextword.explanation.lens import lens
from nextword.language_modeling import windows_of
from nextword.loss.linear import linear_cross_entropy
from nextword.model.transformer import Transformer
from nextword.prediction.loading import Opened, prepared_folder, run_facts
from nextword.settings import read_recipe, resolve
from nextword.targets.batch import read_windows
from nextword.training.gradients import lengths_by_part
from nextword.training.journal import Journal
from nextword.vocabulary.prepared import open_prepared
from nextword.vocabulary.tokenizer import Vocabulary

ROWS, CHARACTERS = 4, 700
"""Of a batch, that are shown."""


def batch_at(run: Path, step: int, opened: Opened | None) -> dict[str, Any]:
    """Return what a step read, for batches are pure functions of seed and step.

    Args:
        run: its folder.
        step: counted from 1, as the journal does.
        opened: the newest model, whose gradients on this batch are measured; None where none is.

    Raises:
        NextwordError: the run has no text, or no such step.
    """
    facts = run_facts(run)
    if "task" in facts:
        raise EvaluationError(
            f"{run.name}: learned from examples; its batches hold no running text"
        )
    plan = facts.get("plan") or {}
    if step < 1:
        raise EvaluationError(f"step {step}: steps are counted from 1")
    prepared = open_prepared(prepared_folder(run, facts))
    seed = resolve(read_recipe(run / "settings.toml")).training.seed
    rows, context = int(plan["rows"]) - int(plan.get("written", 0)), int(plan["context"])
    windows = windows_of(prepared, context, rows, seed)
    streams = [portion.train for portion in prepared.portions]
    window = read_windows(streams, windows, step - 1, slice(0, ROWS))
    texts = [prepared.vocabulary.decode(row.tolist(), special=True) for row in window]
    told: dict[str, Any] = {
        "step": step,
        "rows": rows,
        "texts": [text[:CHARACTERS] + ("…" if len(text) > CHARACTERS else "") for text in texts],
        "layers": [],
    }
    spikes = (event for event in Journal(run).read("spike") if event["step"] == step)
    if known := next((event["parts"] for event in spikes if event.get("parts")), None):
        # As it was, of the whole batch and by the weights of then.
        told["layers"] = [{"name": name, "norm": length} for name, length in known.items()]
    elif opened is not None and opened.model.shape.causal:
        told["checkpoint"] = opened.step
        told["layers"] = gradients_by_layer(opened.model, torch.from_numpy(window))
    return told


def gradients_by_layer(model: Transformer, window: torch.Tensor) -> list[dict[str, Any]]:
    """Return the length of the gradient of each layer on some rows of text (B, T + 1)."""
    rows = window.long().to(model.device)
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        hidden = model.hidden(rows[:, :-1]).flatten(0, 1)
        loss = linear_cross_entropy(hidden, model.output_weight, rows[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
    found = lengths_by_part(model)
    model.zero_grad(set_to_none=True)
    return [{"name": name, "norm": length} for name, length in found.items()]


def layers_say(model: Transformer, vocabulary: Vocabulary, text: str) -> list[dict[str, Any]]:
    """Return what each layer would say next."""
    if not model.shape.causal:
        return []
    return [
        {"layer": one.layer, "top": one.candidates, "probability": one.target_probability}
        for one in lens(model, vocabulary, text)
    ]
