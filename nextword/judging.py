"""What is told of a model in training beside its loss, who works it out, and which is kept."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import torch

from nextword.base.errors import RunError
from nextword.callbacks import evaluation_every
from nextword.explanation.previews import Preview, fill_in, preview_holdout, write_sample
from nextword.explanation.ruler import count_beginning
from nextword.model.transformer import Transformer
from nextword.prediction.divided import share_out
from nextword.prediction.loading import find_checkpoint
from nextword.rendering.formatting import argument
from nextword.run import Run
from nextword.training.checkpoint import Checkpoint, best_of, list_checkpoints
from nextword.training.vouched import find_damage
from nextword.vocabulary.prepared import Prepared

LEAST_SCORED, MOST_SCORED = 4_000, 40_000
"""Tokens of the hold-out scored on the way."""
BY_HEART = 1.005
"""Above the best loss on the way from which a run is said to learn by heart."""


def evaluated_tokens(run: Run) -> int:
    """Return how much of the hold-out is scored on the way.

    So much that checkpoints can be told apart, and not so much that a short run is spent on it.
    """
    between = evaluation_every(run) * run.plan.batch_tokens
    asked = run.training.evaluate_tokens
    return asked or min(MOST_SCORED, max(LEAST_SCORED, between // 2))


class Shown(NamedTuple):
    """What a model writes, and where it errs."""

    sample: str
    preview: Preview | None


def show(run: Run, model: Transformer, prepared: Prepared, step: int) -> Shown:
    """Let the model write a little, and look at the hardest place of a held-out text.

    All processes call it; each does a part, and knows the whole.

    Args:
        run: says how it writes.
        model: its network, of the same weights everywhere.
        prepared: the text.
        step: chooses the text, and is the sample's seed.
    """

    def sample() -> str:
        if not model.shape.causal:
            return fill_in(model, prepared, step)
        return write_sample(model, run.vocabulary, run.settings.generation, step)

    def preview() -> str:
        found = preview_holdout(model, prepared, step)
        return json.dumps(None if found is None else vars(found))

    written, seen = share_out((sample, preview), run.ranks)
    found = json.loads(seen)
    return Shown(written, None if found is None else Preview(**found))


class Counting:
    """What counting needs for the tokens that a model is scored on."""

    def __init__(self, prepared: Prepared) -> None:
        """Take a text; nothing is counted before it is asked for."""
        self._prepared = prepared
        self._known: dict[int | None, dict[str, float]] = {}
        self._begun: dict[int | None, Future[dict[str, float]]] = {}

    def begin(self, run: Run) -> None:
        """Count beside the training, where others would wait for it: the first process calls this.

        On one process's processor both would compute at the same cores, and nothing were gained.
        """
        if run.ranks.size == 1 and run.machine.device.type == "cpu":
            return
        most, threads = evaluated_tokens(run), ThreadPoolExecutor(1, "counting")
        self._begun[most] = threads.submit(count_beginning, self._prepared, most)
        threads.shutdown(wait=False)

    def of(self, most: int | None) -> dict[str, float]:
        """Return the nats a token, by name.

        Args:
            most: held-out tokens that were scored; None for all.
        """
        if most not in self._known:
            begun = self._begun.pop(most, None)
            found = count_beginning(self._prepared, most) if begun is None else begun.result()
            self._known[most] = found
        return self._known[most]


def better_before(run: Run, loss: float | None) -> Checkpoint | None:
    """Return the best checkpoint, where it was better than a loss by more than chance."""
    run.saver.finish()
    saved = [point for point in list_checkpoints(run.folder) if point.holdout_loss is not None]
    best = best_of(saved) if saved else None
    if best is None or best.holdout_loss is None or loss is None:
        return None
    return best if loss > BY_HEART * best.holdout_loss else None


def refuse_damaged(run: Run, checkpoint: Checkpoint) -> None:
    """Refuse what is not whole.

    Raises:
        RunError: says how to go on.
    """
    if found := find_damage(checkpoint.folder, whole=False):
        raise RunError(f"{found}; nextword train --resume {argument(run.folder.name)} goes on")


def last_good(run: Run) -> Checkpoint | None:
    """Find the newest checkpoint that is whole: the first process looks, and tells the others."""
    found = None
    if run.ranks.is_first:
        with suppress(RunError):
            found = find_checkpoint(run.folder, "last", whole=True)
    mine = torch.tensor(found.step if found else -1 if run.ranks.is_first else 0)
    step = int(run.ranks.sum(mine.to(run.machine.device)))
    saved = list_checkpoints(run.folder) if step >= 0 else []
    return next((one for one in saved if one.step == step), None)
