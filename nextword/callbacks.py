"""Callbacks of a training run: evaluation, checkpoints, logging, pinned sentences, the summary.

`pretrain.py` hands these to the loop, which knows nothing of them.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from nextword.base.errors import DivergedError
from nextword.explanation.previews import (
    beginning_of,
    fill_in,
    floor_of,
    preview_holdout,
    write_sample,
)
from nextword.explanation.replay import as_event, judge_pins, read_pins, replay_every
from nextword.explanation.ruler import count_pieces, measure_ruler
from nextword.model.folder import read_model
from nextword.model.transformer import Transformer
from nextword.prediction.evaluate import Evaluation, evaluate
from nextword.prediction.masked import evaluate_masked
from nextword.rendering.progress import Progress
from nextword.rendering.ruler import sentence, sentence_at_hidden
from nextword.rendering.training import describe_end, describe_evaluation
from nextword.run import Interrupted, Run, interruptible, save
from nextword.training.checkpoint import best_of, list_checkpoints
from nextword.training.journal import Journal
from nextword.training.loop import Callback, Plan, TrainerState, Training, describe, run_loop

EVALUATIONS = 4


def callbacks(
    run: Run, model: Transformer, optimizers: Sequence[torch.optim.Optimizer]
) -> list[Callback]:
    """Return what the loop calls.

    The journal and the bar at each step; the pinned sentences, evaluation and checkpoints now and
    then.
    """
    journal, settings = Journal(run.folder), run.settings.training
    pins, judged_at = read_pins(run.folder), set[int]()
    replayed = replay_every(run.settings.explanation, run.plan.steps)

    def replay(state: TrainerState) -> None:
        if not pins or state.step in judged_at:
            return
        judged_at.add(state.step)
        start = time.perf_counter()
        judged = judge_pins(model, run.prepared.vocabulary, pins)
        journal.write(as_event(state.step, judged, time.perf_counter() - start))

    def judge(state: TrainerState) -> None:
        replay(state)
        partial = scores = _score(run, model, settings.evaluate_tokens)
        if state.is_last:
            run.final = scores = _score(run, model, None)
        values = {key: value for key, value in scores.as_dict().items() if key != "loss_by_context"}
        sample = (
            write_sample(model, run.prepared.vocabulary, run.settings.generation, state.step)
            if model.shape.causal
            else fill_in(model, run.prepared, state.step)
        )
        journal.write(
            {
                "event": "evaluation",
                "step": state.step,
                **values,
                "partial_nats_per_token": partial.nats_per_token,
                "whole": state.is_last,
                "sample": sample,
            }
        )
        run.progress.say(
            describe_evaluation(
                state.step, scores, sample, preview_holdout(model, run.prepared, state.step)
            )
        )
        save(run, model, optimizers, state.step, partial.nats_per_token)

    def keep(state: TrainerState) -> None:
        replay(state)
        if not any(saved.step == state.step for saved in list_checkpoints(run.folder)):
            save(run, model, optimizers, state.step, None)

    every = settings.evaluate_every or max(1, -(-run.plan.steps // EVALUATIONS))
    calls = [
        log_steps(run.folder, run.progress, run.plan),
        Callback(replayed, replay, at_start=True),
        Callback(every, judge),
    ]
    if settings.checkpoint_every:
        calls.append(Callback(settings.checkpoint_every, keep))
    return calls if run.ranks.is_first else []


def _score(run: Run, model: Transformer, max_tokens: int | None) -> Evaluation:
    if not model.shape.causal:
        return evaluate_masked(
            model,
            run.prepared.holdout,
            run.prepared.vocabulary,
            run.settings.evaluation,
            run.settings.objective,
            max_tokens=max_tokens,
        )
    return evaluate(
        model,
        run.prepared.holdout,
        run.settings.evaluation,
        max_tokens=max_tokens,
        withheld=run.prepared.bits_withheld,
        count_bytes=run.prepared.vocabulary.count_bytes,
    )


def sum_up(run: Run) -> str:
    """Say how the run ended; return the sentence that judges its loss, or nothing."""
    if run.final is None:
        return ""
    saved = [point for point in list_checkpoints(run.folder) if point.holdout_loss is not None]
    best, last = best_of(saved), saved[-1]
    overfit = None
    if (
        best.holdout_loss is not None
        and last.holdout_loss is not None
        and last.holdout_loss > 1.005 * best.holdout_loss
    ):
        # What is kept and used is judged here, not what training ended with.
        overfit = (best.step, last.step)
        kept = read_model(best.folder).to(run.machine.device).eval()
        run.final = _score(run, kept, None)
    journal, floor = Journal(run.folder), floor_of(run.prepared, run.final)
    if floor is not None:
        nats, share = floor.excess(run.final.nats_per_token)
        journal.write(
            {
                "event": "floor",
                "step": run.plan.steps,
                "nats_per_token": floor.nats_per_token,
                "above": nats,
                "share": share,
            }
        )
    # Said before anything else is measured: a finished run must not lose its last words.
    run.progress.say(
        describe_end(
            run.folder,
            run.final,
            run.seconds,
            len(run.prepared.vocabulary),
            floor,
            overfit,
            beginning_of(run.prepared),
        )
    )
    if run.final.at_hidden:
        counted = count_pieces(run.prepared)
        return f"\n{sentence_at_hidden(run.final.nats_per_token, counted, run.shape.vocab_size)}"
    ruler = measure_ruler(
        run.prepared,
        run.final,
        model="this model",
        floor_nats=None if floor is None else floor.nats_per_token * run.final.tokens,
    )
    journal.write({"event": "ruler", "step": run.plan.steps, **ruler.as_dict()})
    return f"\n{sentence(ruler)}"


def fit(
    training: Training,
    first_step: int,
    callbacks: Sequence[Callback],
    *,
    folder: Path,
    progress: Progress,
    save: Callable[[int], None],
    rate: str,
) -> None:
    """Run the loop: what training on text and fine-tuning do alike.

    Args:
        training: network, loss, data and plan.
        first_step: steps done before.
        callbacks: what to call after each step.
        folder: of the run.
        progress: where to say what happens.
        save: saves a checkpoint of a step, where Ctrl-C was pressed.
        rate: the option that a loss which is no number suggests to lower.

    Raises:
        DivergedError: the loss is no number any more; names the last good checkpoint.
        Interrupted: on Ctrl-C, after saving.
    """
    progress.start(training.plan.steps, first_step)
    try:
        with interruptible() as interrupt:
            stop = stop_when_asked(folder, interrupt, save)
            run_loop(training, first_step, [*callbacks, stop])
    except DivergedError as error:
        saved = [f"{folder.name}@{point.step}" for point in list_checkpoints(folder)]
        good = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was saved"
        raise DivergedError(f"{error}; training stopped, {good}; try a lower {rate}") from None
    finally:
        progress.stop()


def log_steps(folder: Path, progress: Progress, plan: Plan) -> Callback:
    """Return what writes each step into the run's log and moves the bar on."""
    journal, began = Journal(folder), time.monotonic()

    def note(state: TrainerState) -> None:
        journal.write(describe(state) | {"seconds": round(time.monotonic() - began, 3)})
        speed = state.tokens_per_second
        progress.step(state.step, plan.steps, state.loss, speed, plan.batch_tokens)

    return Callback(1, note)


def stop_when_asked(folder: Path, interrupt: list[int], save: Callable[[int], None]) -> Callback:
    """Return what, at a step's end, saves and stops if Ctrl-C was pressed.

    Args:
        folder: of the run.
        interrupt: not empty once Ctrl-C was pressed.
        save: saves a checkpoint of a step.
    """

    def stop(state: TrainerState) -> None:
        if not interrupt or state.is_last:
            return
        if not any(saved.step == state.step for saved in list_checkpoints(folder)):
            save(state.step)
        raise Interrupted(folder, state.step)

    return Callback(1, stop)
