"""What can be asked of a run while it learns: its newest weights, on a copy of their own."""

import contextlib
import copy
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nextword.base.errors import EvaluationError, NextwordError
from nextword.base.writer import holder_of
from nextword.explanation.attention import BESIDE_OTHERS, attend
from nextword.explanation.trace import trace
from nextword.loss.linear import linear_cross_entropy
from nextword.machine.options import MachineSettings
from nextword.model.transformer import Transformer
from nextword.prediction.candidates import predict
from nextword.prediction.loading import Opened, find_checkpoint, open_model
from nextword.rendering.attention import attention_values
from nextword.training.checkpoint import list_checkpoints
from nextword.training.live import LIVE, Handed, ask, handed
from nextword.watch.reading import batch_at, layers_say

WISH_SECONDS, PATIENCE_SECONDS = 1.0, 1.0
"""Between two wishes for weights, and for which an answer is waited for."""
LONGEST = 4000
"""Characters of a text that is asked about."""
COLUMNS = 12
"""Checkpoints that are asked at most, for they are opened one after the other."""
SHARE = 0.5
"""By which one step of teaching would lower the loss, if its slope stayed the same."""


class Weights:
    """A run's newest weights, opened when they are asked for, and again when there are newer."""

    def __init__(self, run: Path) -> None:
        """Open nothing yet.

        Args:
            run: its folder.
        """
        self.run = run
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._next_wish = 0.0
        self._taught: tuple[str, int, int, Transformer] | None = None
        self._columns: tuple[str, dict[int, list[dict[str, Any]]]] = "", {}

    def opened(self) -> Opened:
        """Return the newest model: of this moment where it trains on this machine.

        Raises:
            NextwordError: there are no weights yet, or they cannot be asked.
        """
        now = self._of_this_moment()
        try:
            point = find_checkpoint(self.run, "last")
        except NextwordError:
            if now is None:
                raise
            point = None
        if now is not None and (point is None or now.step > point.step):
            return self._keep(str(self.run / LIVE), now.step)
        assert point is not None
        return self._keep(f"{self.run}@{point.step}", point.step)

    def _keep(self, target: str, step: int) -> Opened:
        if self._opened is None or self._opened.step != step:
            found = open_model(target, MachineSettings(device="cpu"))
            found.refuse("predict")
            self._opened, self._taught = replace(found, run=self.run, step=step), None
        return self._opened

    def _of_this_moment(self) -> Handed | None:
        """Ask whoever trains the run for its weights, and wait a moment for them."""
        holder = holder_of(self.run)
        if holder is None or holder.get("host") != socket.gethostname():
            return None
        now = time.monotonic()
        if now >= self._next_wish:
            self._next_wish = now + WISH_SECONDS
            wish = ask(self.run, weights=True).weights
            while time.monotonic() < now + PATIENCE_SECONDS:
                found = handed(self.run)
                if found is not None and found.weights >= wish:
                    break
                time.sleep(0.02)
        found = handed(self.run)
        if found is None or found.process != holder.get("process"):
            return None
        return found

    def ask(self, text: str, top: int = 12, taught: str = "", times: int = 0) -> dict[str, Any]:
        """List what may come next after a text, and judge the text itself.

        Args:
            text: at most some thousand characters.
            top: candidates.
            taught: a sentence that the copy asked has learned before.
            times: steps in which it has learned it.
        """
        _check(text)
        with self._lock:
            opened = self.opened()
            model = self._learned(opened, taught, times) if taught and times else opened.model
            told = predict(model, opened.vocabulary, text, top).as_dict()
            judged = _judged(model, opened, text)
            layers = layers_say(model, opened.vocabulary, text)
            return {**told, "step": opened.step, "judged": judged, "layers": layers}

    def attention(self, text: str, taught: str = "", times: int = 0) -> dict[str, Any]:
        """Return where each head looks while the newest weights, or a taught copy, read a text."""
        _check(text)
        with self._lock:
            opened = self.opened()
            if taught and times:
                opened = replace(opened, model=self._learned(opened, taught, times))
            return {"step": opened.step, **attention_values(attend(opened, text, BESIDE_OTHERS))}

    def by_step(self, text: str) -> dict[str, Any]:
        """Return what each layer says next, by each checkpoint and by the newest weights.

        Args:
            text: that is gone on with.

        Returns:
            columns by step; of many checkpoints some, evenly spread.
        """
        _check(text)
        with self._lock:
            newest = self.opened()
            if self._columns[0] != text:
                self._columns = text, {}
            known = self._columns[1]
            points = list_checkpoints(self.run)
            spread = {round(n * (len(points) - 1) / (COLUMNS - 1)) for n in range(COLUMNS)}
            for point in [point for n, point in enumerate(points) if n in spread]:
                if point.step not in known and point.step != newest.step:
                    # A damaged one is left out, and one that has just been cleared away.
                    with contextlib.suppress(NextwordError):
                        known[point.step] = self._layers_at(point.step, text)
            known[newest.step or 0] = layers_say(newest.model, newest.vocabulary, text)
            columns = [{"step": step, "layers": known[step]} for step in sorted(known)]
            return {"text": text, "columns": columns}

    def _layers_at(self, step: int, text: str) -> list[dict[str, Any]]:
        opened = open_model(f"{self.run}@{step}", MachineSettings(device="cpu"))
        return layers_say(opened.model, opened.vocabulary, text)

    def batch(self, step: int) -> dict[str, Any]:
        """Return what a step read, and which layers its gradient moves most."""
        with self._lock:
            try:
                opened = self.opened()
            except NextwordError:
                return batch_at(self.run, step, None)
            return batch_at(self.run, step, opened)

    def teach(self, text: str, times: int = 1) -> dict[str, Any]:
        """Learn one sentence in some steps of gradient descent, on a copy; the run never knows.

        Returns:
            each piece with its probability before and after, and the loss after each step.
        """
        _check(text)
        with self._lock:
            opened = self.opened()
            if len(opened.vocabulary.encode(text)) < 1:
                raise EvaluationError("there is nothing to learn; give some words")
            before = _judged(opened.model, opened, text)
            after = _judged(self._learned(opened, text, times), opened, text)
            pieces = [
                {"piece": one["piece"], "before": one["probability"], "after": two["probability"]}
                for one, two in zip(before, after, strict=True)
            ]
            return {"step": opened.step, "times": times, "pieces": pieces}

    def _learned(self, opened: Opened, text: str, times: int) -> Transformer:
        known = self._taught
        if known is not None and known[:2] == (text, times) and known[2] == opened.step:
            return known[3]
        model = copy.deepcopy(opened.model)
        ids = [opened.vocabulary.begin_id, *opened.vocabulary.encode(text)]
        for _ in range(times):
            descend(model, ids[: model.shape.context + 1])
        self._taught = (text, times, opened.step or 0, model)
        return model


def descend(model: Transformer, ids: Sequence[int], share: float = SHARE) -> float:
    """Do one step of gradient descent on one text; return the loss before, in nats a piece.

    The rate is the one at which the loss would fall by a share of itself if its slope stayed the
    same: share · loss / Σ gradient².
    """
    row = torch.tensor([list(ids)], device=model.device)
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        hidden = model.hidden(row[:, :-1]).flatten(0, 1)
        loss = linear_cross_entropy(hidden, model.output_weight, row[0, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    squares = float(sum(float(part.double().square().sum()) for part in gradients))
    if squares > 0:
        rate = share * float(loss.detach()) / squares
        with torch.no_grad():
            for weight in model.parameters():
                if weight.grad is not None:
                    weight.sub_(weight.grad, alpha=rate)
    model.zero_grad(set_to_none=True)
    return float(loss.detach())


def _judged(model: Transformer, opened: Opened, text: str) -> list[dict[str, Any]]:
    if not text or not opened.vocabulary.encode(text):
        return []
    found = trace(model, opened.vocabulary, text, top=3, name=opened.name)
    return [
        {
            "piece": position.piece,
            "probability": position.probability,
            "nats": position.nats,
            "top": [[guess.piece, guess.probability] for guess in position.candidates],
        }
        for position in found.positions
    ]


def _check(text: str) -> None:
    if len(text) > LONGEST:
        raise EvaluationError(f"{len(text):,} characters are more than the page asks about")
