"""Fit a model: the one way through training, for text and for examples alike.

    first weights → folder → optimizers → loop → evaluation, log, checkpoints → interruption

What differs between ways of training (data, loss, head, score) is a `Task`.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from nextword.base.errors import DivergedError, SettingsError
from nextword.base.signals import Broken, listening, stopped_by
from nextword.base.writer import one_writer
from nextword.callbacks import (
    Judged,
    checkpoints,
    evaluation,
    follow_clock,
    foretell,
    last_good,
    log_steps,
    save_once,
    stop_when_asked,
)
from nextword.machine.parts import whole_size
from nextword.model.folder import read_weights
from nextword.model.runner import LayerRunner, as_it_stands, keeping_less
from nextword.model.transformer import Transformer
from nextword.rendering.training import describe_fit, describe_saving
from nextword.run import Interrupted, Run, begin, go_back, prune, save
from nextword.training.ahead import BatchLike
from nextword.training.checkpoint import (
    list_checkpoints,
    remove_checkpoints,
    restore_optimizers,
)
from nextword.training.dividing import choose_division, free_for_each, gathered_bytes
from nextword.training.gradients import forget_gradients
from nextword.training.journal import Journal
from nextword.training.layers import (
    arrange_layers,
    first_line,
    refuse_compiling,
    try_out,
    with_compiling,
)
from nextword.training.live import listen
from nextword.training.loop import (
    REMEMBERED_NORMS,
    Callback,
    TrainerState,
    Training,
    run_loop,
)
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.remembered import follow_rates, halved_by, left_out_by, norms_of
from nextword.training.room import RECOMPUTE, check_copys_memory, make_it_fit, needs_of_row
from nextword.training.step import kept_bytes, shared_among_processes


class Task(ABC):
    """One way of training: where it begins, its loss, its data, and how it is judged."""

    every_token_is_a_target: bool = False
    """Whether each token that is read is also asked for."""
    lengths_vary: bool = True
    """Whether rows are longer in one step than in another."""
    rate: ClassVar[str]
    """The option that a loss which is no number suggests to lower."""

    @abstractmethod
    def model(self, run: Run) -> Transformer:
        """Return the network on the run's device: its first weights, or those to go on with."""

    @abstractmethod
    def loss(self, run: Run, model: Transformer) -> nn.Module:
        """Return the network and its loss as one module, which takes what `read` returns."""

    @abstractmethod
    def read(self, step: int, rows: slice) -> BatchLike:
        """Return some rows of a step's batch; a pure function of both."""

    @abstractmethod
    def judge(self, run: Run, model: Transformer, state: TrainerState) -> Judged | None:
        """Score the hold-out; None without one, and in all processes but the first."""

    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """Return what only this task knows of a new run, for run.json."""

    @abstractmethod
    def describe(self, run: Run) -> str:
        """Say what will be done."""

    def optimizers(self, run: Run, model: Transformer) -> list[torch.optim.Optimizer]:
        """Build what moves the weights."""
        return build_optimizers(groups_of(model), run.training)

    def bytes_beside(self, run: Run, model: Transformer) -> int:
        """Bound what a step needs beside the weights: their gradients and the optimizer's state."""
        copies = 3 if run.training.optimizer == "adamw" else 2
        return 4 * copies * whole_size(model)

    def bytes_saved(self, run: Run, model: Transformer) -> int:
        """Bound the copy that is kept to be saved: weights and the optimizer's state."""
        return self.bytes_beside(run, model)  # gradients are as large as the weights

    def callbacks(self, run: Run, model: Transformer) -> Sequence[Callback]:
        """Return what else happens while it trains, before it is judged.

        The first process calls it; where weights are divided among them, all do.
        """
        return ()

    def conclude(self, run: Run, model: Transformer) -> None:  # noqa: B027 - not all have to
        """Score what is kept, should that not be what training ended with; all processes do."""


def fit(run: Run, task: Task, end: Callable[[], None] = lambda: None) -> None:
    """Train a run to its plan's last step.

    Args:
        run: where, with which plan; new, or resumed.
        task: what is learned.
        end: what is written down of the whole, by the first process, while nobody else may write.

    Raises:
        DivergedError: the loss is no number any more; names the last good checkpoint.
        Interrupted: on Ctrl-C, after saving.
    """
    run.ranks.agree("checkpoints to go on from", run.first_step)
    asked, before = run.settings.machine.parallel, run.resumed and run.resumed.facts
    of = (run.shape, run.training, run.machine.device)
    run.ranks = choose_division(asked, run.ranks, *of, before)
    model = task.model(run)
    check_steps_memory(run, task, model)
    choose_layers(run, task, model)
    if run.ranks.is_first and run.resumed is None:
        begin(run, model, task.facts())
    with one_writer(run.folder) if run.ranks.is_first else nullcontext():
        if run.ranks.is_first and run.resumed is not None:
            go_back(run.resumed, run.machine, run.ranks.size, run.progress)
            prune(run)  # who was killed after saving had not come to that
        run.ranks.wait()
        training = _set_up(run, task, model)
        if run.ranks.is_first:
            run.progress.say(task.describe(run))
            if run.ranks.why:
                run.progress.say(f"processes   {run.ranks.size}: {run.ranks.why}")
        started = time.monotonic()
        _loop(run, task, training, model)
        run.seconds = time.monotonic() - started
        try:
            task.conclude(run, model)
            if run.ranks.is_first:
                end()
        except KeyboardInterrupt as stopped:
            number = getattr(stopped, "number", None)
            raise Interrupted(run.folder, run.pace.steps, number) from None


def _set_up(run: Run, task: Task, model: Transformer) -> Training:
    """Bring together what the loop works with."""
    optimizers = task.optimizers(run, model)
    follow_rates(run.pace, run.folder)
    if run.saved is not None:
        restore_optimizers(run.saved.folder, model, optimizers)
    loss = task.loss(run, model)
    if run.ranks.size > 1 and not run.ranks.divides_weights:
        batch = task.read(run.first_step, slice(0, 1))
        loss = shared_among_processes(loss, batch, run.machine.device)
    journal = Journal(run.folder)
    halved = halved_by(journal, run.first_step)

    def note(step: int, rows: int) -> None:
        journal.write({"event": "micro_batch", "step": step, "rows": rows})
        run.progress.say(
            f"step {step + 1:,}: the memory is not enough for {2 * rows} rows at once; it goes on "
            f"with {rows}, and learns the same"
        )

    return Training(
        *(loss, model, optimizers, task.read),
        run.plan if halved is None else replace(run.plan, micro_rows=halved),
        *(run.training, run.machine, run.ranks),
        has_halved=halved is not None,
        halved=note,
        every_token_is_a_target=task.every_token_is_a_target,
        pace=run.pace,
        left_out=left_out_by(journal, run.first_step),
        norms=deque(norms_of(journal, run.first_step), REMEMBERED_NORMS),
    )


def check_steps_memory(run: Run, task: Task, model: Transformer) -> None:
    """Make a step fit beside the weights, by what one row of it keeps, or refuse it.

    A quick bound says first whether that is worth a forward pass. What a row keeps is measured, and
    grows with the rows; gradients and the optimizer's state are as large as the weights.

    Raises:
        SettingsError: names what is needed, what is free, and the setting that would fit.
    """
    free, asked = free_for_each(run.ranks, run.machine.device), run.settings.machine.recompute
    if run.saved is None and asked != "auto":
        run.plan = replace(run.plan, recompute=asked)
    shares = run.ranks.pieces
    beside = task.bytes_beside(run, model) // shares + gathered_bytes(run.shape, run.ranks)
    saved = task.bytes_saved(run, model) // shares
    if run.machine.device.type == "cpu":
        beside += saved
    else:
        check_copys_memory(saved * run.ranks.on_machine)
    plan = run.plan
    tokens = plan.micro_rows * plan.context
    bound = tokens * run.shape.num_hidden_layers * MOST_PER_TOKEN * run.shape.hidden_size
    if beside + bound < free:
        return
    needs = _needs_of_row(run, task, model)
    chosen = [plan.recompute] if asked != "auto" or run.saved is not None else RECOMPUTE
    fitting = make_it_fit(
        plan,
        {how: needs[how] for how in chosen},
        free - beside,
        rows_are_free=run.saved is None and run.training.micro_batch_tokens is None,
    )
    if fitting is not None:
        if fitting != plan:
            run.progress.say(describe_fit(fitting))
        run.plan = fitting
        return
    row = needs[chosen[-1]]
    rows = int(max(free - beside, 0) / row)
    advice = (
        f"--training.micro-batch-tokens {rows * plan.context // run.ranks.together} would fit"
        if rows
        else f"choose a smaller --model.depth (it is {run.shape.num_hidden_layers}) or "
        f"--model.context (it is {plan.context})"
    )
    needed = (beside + plan.micro_rows * row) / 1e9
    raise SettingsError(
        f"a step over {tokens:,} tokens at once needs {needed:,.2f} GB beside the weights, what is "
        f"saved of them counted, and "
        f"{free / 1e9:,.2f} GB are free here; {advice}"
    )


def _needs_of_row(run: Run, task: Task, model: Transformer) -> dict[str, float]:
    """Measure what a row keeps, and foresee what it would with less."""
    layers, divides = 1, run.ranks.divides_weights
    if divides:  # gathered weights are none that are kept: one layer speaks for all
        model = Transformer(replace(run.shape, num_hidden_layers=1)).to(run.machine.device)
        model.set_precision(run.machine.precision)
        layers = run.shape.num_hidden_layers
    batch, loss = task.read(run.first_step, slice(0, 1)), task.loss(run, model)
    # Where rows have masks, this one must have one.
    masked = run.settings.machine.compile == "on" or run.ranks.context > 1
    model.model.runner = LayerRunner(is_compiled=masked)
    kept = SPARE * kept_bytes(loss, batch, model.device)
    model.model.runner = LayerRunner(keeping_less(as_it_stands, "full"))
    beside = SPARE * kept_bytes(loss, batch, model.device)
    model.model.runner = None
    kept = beside + layers * (kept - beside)
    if divides:  # of that each has its share
        kept, beside = kept / run.ranks.together, beside / run.ranks.together
    size = run.machine.precision.itemsize
    return needs_of_row(kept, beside, run.shape, run.plan.context, size)


def choose_layers(run: Run, task: Task, model: Transformer) -> None:
    """Let the layers be computed as the plan says, and try them out where they are compiled.

    Raises:
        SettingsError: they cannot be compiled, and that was asked for.
    """
    asked, machine = run.settings.machine, run.machine
    of = (run.shape, run.plan, run.ranks.groups)
    plan = with_compiling(asked, machine.device, *of, goes_on=run.saved is not None)
    while True:
        run.plan = plan
        arrange_layers(model, machine.device, plan, lengths_vary=task.lengths_vary)
        if not plan.compiled:
            return
        run.progress.say("compiling the layers, once for all of them")
        batch = task.read(run.first_step, slice(0, plan.micro_rows))  # of the shape of all parts
        failed = try_out(task.loss(run, model), batch, machine)
        if not any(run.ranks.most(failed is not None)):
            return
        if asked.compile == "on":
            raise refuse_compiling(failed)
        run.progress.say(f"the layers cannot be compiled here ({first_line(failed)})")
        plan = replace(plan, compiled=False)


MOST_PER_TOKEN = 200
"""More bytes than a layer keeps for a token and each unit of its width (85 at 256 wide)."""
SPARE = 1.2
"""By which a step held more than its forward pass keeps: 1.15 to 1.23, at 4 layers 256 wide."""


def _loop(run: Run, task: Task, training: Training, model: Transformer) -> None:
    """Run the loop with its callbacks, and say where what ended early can go on from."""

    def keep(step: int, holdout: float | None, *, is_unfinished: bool = False) -> None:
        if run.ranks.is_first or run.ranks.divides_weights:
            of = (run, model, training.optimizers)
            save(*of, step, holdout, is_unfinished=is_unfinished)

    judged = evaluation(run, lambda state: task.judge(run, model, state), keep)
    calls = [judged]
    if run.ranks.is_first or run.ranks.divides_weights:
        calls = [*task.callbacks(run, model), judged, *checkpoints(run, keep)]
    if run.ranks.is_first:
        calls = [foretell(run), log_steps(run), *calls]
    run.progress.start(run.pace.steps, run.first_step)
    if run.clock is not None:
        calls.append(follow_clock(run, run.clock))
    try:
        with listening() as asked:
            stop = stop_when_asked(run, asked, keep)
            if run.saved is not None and run.saved.is_unfinished:
                done = run.first_step
                begun = TrainerState(done, is_last=done == run.pace.steps)
                judged.action(begun)
                stop.action(begun)  # which all do, should it have been left again
            # Last but one, so that what the page told is written down.
            calls.append(listen(run.folder, model, run.vocabulary, run.pace, run.ranks))
            calls.append(stop)
            with run.saver.arriving(run.ranks):
                try:
                    _run_through(run, task, training, calls)
                except Broken as broken:  # in the middle of a step, of which nothing is kept
                    done = broken.step or 0
                    if done:  # before the first there is nothing that its settings do not say
                        save_once(run, done, keep)
                    raise Interrupted(run.folder, done, stopped_by()) from None
    finally:
        run.progress.stop()
    if run.saver.saves and run.ranks.is_first:
        run.progress.say(describe_saving(run.saver))


MOST_ROLLBACKS = 3


def _run_through(run: Run, task: Task, training: Training, callbacks: Sequence[Callback]) -> None:
    """Run the loop to its end; where it diverges, go back and leave that batch out, if asked to.

    Raises:
        DivergedError: it is not asked to, there is nothing to go back to, or it was often enough.
    """
    first = run.first_step
    while True:
        try:
            run_loop(training, first, callbacks)
            return
        except DivergedError as error:
            run.saver.wait_for_all(run.ranks)
            run.saver.finish()
            saved = last_good(run)
            good = (
                f"the last good checkpoint is {run.folder.name}@{saved.step}"
                if saved
                else "no checkpoint was saved"
            )
            goes_back = run.training.on_nan == "rollback" and error.step is not None
            if not goes_back or saved is None or len(training.left_out) >= MOST_ROLLBACKS:
                raise DivergedError(
                    f"{error}; training stopped, {good}; try a lower {task.rate}"
                ) from None
            first = saved.step
            training.left_out.add(error.step or 0)
            assert isinstance(training.model, Transformer)
            read_weights(training.model, saved.folder)
            forget_gradients(training.model, training.optimizers)
            restore_optimizers(saved.folder, training.model, training.optimizers)
            if run.ranks.is_first:
                later = [one for one in list_checkpoints(run.folder) if one.step > first]
                remove_checkpoints(later, keep=())  # damaged, or they would not be later
                journal = Journal(run.folder)
                journal.forget_after(first)
                journal.write({"event": "rollback", "step": first, "left_out": error.step})
                run.progress.say(f"{error}; {good}: it goes on from there without that batch")
            run.ranks.wait()  # until the log is as it was there
            training.norms.clear()
            training.norms.extend(norms_of(Journal(run.folder), first))
