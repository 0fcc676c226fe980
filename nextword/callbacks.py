"""Callbacks of a training run: logging, evaluation, checkpoints, interruption; what a model shows.

`fit.py` hands these to the loop, which knows nothing of them.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple, Protocol

import torch

from nextword.base.errors import RunError
from nextword.base.signals import Asked, Broken, breakable, stopped_by
from nextword.explanation.previews import Preview, fill_in, preview_holdout, write_sample
from nextword.explanation.ruler import count_beginning
from nextword.model.transformer import Transformer
from nextword.prediction.divided import share_out
from nextword.prediction.loading import find_checkpoint
from nextword.rendering.progress import duration
from nextword.run import Clock, Interrupted, Run
from nextword.training.checkpoint import Checkpoint, best_of, list_checkpoints
from nextword.training.journal import Journal
from nextword.training.loop import Callback, TrainerState, describe
from nextword.training.vouched import find_damage
from nextword.vocabulary.prepared import Prepared

SHORT = 50
"""Steps of which no time is foretold."""
TOLD_FROM, TOLD_SECONDS = 3, 3.0
"""Steps and seconds after which the time is foretold."""
EVALUATIONS_COST = 1.1
"""By which a run takes longer than its steps alone."""
LOOKS = 100
"""At the clock, in a run that follows it."""
REMEMBERED = 5
"""Looks by which the time of a step is told."""
EVALUATIONS = 4
"""Of a run, where its settings do not say how often."""
LEAST_SCORED, MOST_SCORED = 4_000, 40_000
"""Tokens of the hold-out scored on the way."""
BY_HEART = 1.005
"""Above the best loss on the way from which a run is said to learn by heart."""


class Save(Protocol):
    """What brings a checkpoint to the disk."""

    def __call__(self, step: int, holdout: float | None, *, is_unfinished: bool = False) -> None:
        """Save.

        Args:
            step: steps done.
            holdout: loss on the hold-out, where it was evaluated.
            is_unfinished: whether its evaluation was due and was left.
        """


class Judged(NamedTuple):
    """What an evaluation found."""

    loss: float
    """By which checkpoints are compared."""
    figures: Mapping[str, Any]
    """For the log."""
    words: str = ""
    """For the screen."""


def evaluation_every(run: Run) -> int:
    """Return the steps between two evaluations."""
    return run.training.evaluate_every or max(1, -(-run.plan.steps // EVALUATIONS))


def evaluation(run: Run, judge: Callable[[TrainerState], Judged | None], save: Save) -> Callback:
    """Return what scores the hold-out now and then, logs the figures and saves a checkpoint.

    All processes call it, and share the scoring; the first alone writes.

    Args:
        run: the run.
        judge: scores the hold-out; None where there is none, and in all processes but the first.
        save: saves a checkpoint.
    """
    journal = Journal(run.folder)

    def evaluate(state: TrainerState) -> None:
        try:
            # Of several processes all leave the scoring together, and nothing else is left.
            with breakable() if run.ranks.size == 1 else nullcontext():
                judged = judge(state)
        except Broken:  # whoever goes on from here evaluates first
            save(state.step, None, is_unfinished=True)
            (number,) = run.ranks.most(stopped_by() or 0)
            raise Interrupted(run.folder, state.step, int(number) or None) from None
        figures = {} if judged is None else judged.figures
        if run.ranks.is_first:
            journal.write({"event": "evaluation", "step": state.step, **figures})
        if judged is not None and judged.words:
            run.progress.say(judged.words)
        save(state.step, None if judged is None else judged.loss)

    return Callback(evaluation_every(run), evaluate)


def checkpoints(run: Run, save: Save) -> list[Callback]:
    """Return what saves a checkpoint as often as the settings ask, where none was saved."""

    def keep(state: TrainerState) -> None:
        save_once(run, state.step, save)

    every = run.training.checkpoint_every
    return [Callback(every, keep)] if every else []


def log_steps(run: Run) -> Callback:
    """Return what writes each step into the run's log and moves the bar on."""
    journal, began = Journal(run.folder), time.monotonic()

    def note(state: TrainerState) -> None:
        journal.write(describe(state) | {"seconds": round(time.monotonic() - began, 3)})
        if state.spike is not None:
            norm, skips = state.gradient_norm, run.training.on_spike == "skip"
            known = {"gradient_norm": norm, "usual": state.spike, "skipped": skips}
            parts = {part: round(length, 6) for part, length in state.parts.items()}
            journal.write({"event": "spike", "step": state.step, **known, "parts": parts})
            run.progress.say(
                f"step {state.step:,}: a gradient {norm / state.spike:.0f} times as long as usual"
                f"{'; the step is skipped' if skips else ''}"
            )
        speed = state.tokens_per_second
        run.progress.step(state.step, run.pace.steps, state.loss, speed, run.plan.batch_tokens)

    return Callback(1, note, when="later")


def foretell(run: Run) -> Callback:
    """Return what says how long it will take, from the first steps; of a short run nothing."""
    began: list[float] = []

    def tell(state: TrainerState) -> None:
        done, now = state.step - run.first_step, time.monotonic()
        if not began:  # the first step pays for what is made once
            began.append(now)
            return
        if len(began) > 1 or done <= TOLD_FROM or now - began[0] < TOLD_SECONDS:
            return
        began.append(now)
        left = run.pace.steps - state.step
        if left + done >= SHORT:
            seconds = EVALUATIONS_COST * (now - began[0]) / (done - 1) * left
            run.progress.say(f"about {duration(seconds)} for {left:,} steps more")

    return Callback(1, tell, when="later")


def follow_clock(run: Run, clock: Clock) -> Callback:
    """Return what changes the number of steps by the time that is left; called by every process.

    Where a step has become slower there will be fewer of them, and the rate falls as much sooner.
    Each change is written down, so that a resumed run and the recipe of this one know of it.
    """
    journal = Journal(run.folder)
    seen = deque([(run.first_step, time.monotonic())], maxlen=REMEMBERED)

    def look(state: TrainerState) -> None:
        if state.is_last:
            return
        step, then = seen[0]
        seconds = max(time.monotonic() - then, 1e-9) / (state.step - step)
        total = state.step + max(1, int(clock.left / seconds))
        if run.ranks.size > 1:  # all end at the same step: at the first one's
            mine = total if run.ranks.is_first else 0
            total = int(run.ranks.sum(torch.tensor(mine, device=run.machine.device)))
        seen.append((state.step, time.monotonic()))
        if total != run.pace.steps:
            run.pace.change(state.step, total)
            if run.ranks.is_first:
                journal.write({"event": "pace", "step": state.step, "steps": total})

    return Callback(max(1, run.plan.steps // LOOKS), look, at_end=False)


def stop_when_asked(run: Run, asked: Asked, save: Save) -> Callback:
    """Return what, at a step's end, saves and stops if a signal asked for it.

    All processes do, whichever of them was asked: one that stopped alone would be waited for.

    Args:
        run: the run.
        asked: by signals.
        save: saves a checkpoint.
    """

    def stop(state: TrainerState) -> None:
        # After the last evaluation there is nothing to stop.
        alone = asked.stop or 0, asked.save
        agree = not state.is_last or run.ranks.divides_weights
        number, saves = run.ranks.most(*alone) if agree else alone
        if saves:
            asked.save = False
            state.settle()
            save_once(run, state.step, save)
        if not number or state.is_last:
            return
        state.settle()
        save_once(run, state.step, save)
        raise Interrupted(run.folder, state.step, int(number))

    return Callback(1, stop, when="at once")


def save_once(run: Run, step: int, save: Save) -> None:
    """Save a checkpoint of a step, where there is none."""
    run.saver.wait_for_all(run.ranks)
    run.saver.finish()
    is_there = any(saved.step == step for saved in list_checkpoints(run.folder))
    if run.ranks.divides_weights:  # a disk may show it later on another machine: the first says
        is_there = any(run.ranks.most(run.ranks.is_first and is_there))
    if not is_there:
        save(step, None)


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
        alone = run.ranks.size == 1 and run.machine.device.type == "cpu"
        if alone or run.first_step >= run.pace.steps:
            return
        most, found = evaluated_tokens(run), Future[dict[str, float]]()

        def count() -> None:
            try:
                found.set_result(count_beginning(self._prepared, most))
            except BaseException as error:
                found.set_exception(error)

        self._begun[most] = found
        # Nobody who stops waits for it.
        threading.Thread(target=count, name="counting", daemon=True).start()

    def of(self, most: int | None) -> dict[str, float]:
        """Return the nats a token, by name.

        Args:
            most: held-out tokens that were scored; None for all.
        """
        for part, begun in self._begun.items():  # which counts the whole, too
            self._known[part] = begun.result()
        self._begun.clear()
        if most not in self._known:
            self._known[most] = count_beginning(self._prepared, most)
        return self._known[most]


def better_before(run: Run, loss: float | None) -> Checkpoint | None:
    """Return the best checkpoint, where it was better than a loss by more than chance."""
    run.saver.finish()
    saved = [point for point in list_checkpoints(run.folder) if point.holdout_loss is not None]
    best = best_of(saved) if saved else None
    if best is None or best.holdout_loss is None or loss is None:
        return None
    return best if loss > BY_HEART * best.holdout_loss else None


def whole_and_better(run: Run, loss: float | None) -> Checkpoint | None:
    """Return what `better_before` does; None, and a word, where that is damaged."""
    best = better_before(run, loss)
    if best is not None and (damage := find_damage(best.folder, whole=False)):
        run.progress.say(f"{damage}; the last checkpoint is told of instead")
        return None
    return best


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
