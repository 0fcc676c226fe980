"""Pretraining: from text to a trained model, in one straight script; the file to read first.

    text → documents → vocabulary → shards → windows → network → loss → steps → checkpoints → a
    summary

Run it with `nextword train`, or from Python with `nextword.train(...)`.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from nextword.base.errors import RunError
from nextword.base.files import write_json
from nextword.callbacks import callbacks, fit, sum_up
from nextword.corpus.options import STORIES, STORIES_MASKED
from nextword.explanation.replay import choose_pins, write_pins
from nextword.machine.device import choose_machine
from nextword.machine.ranks import join_ranks
from nextword.model.folder import read_model
from nextword.model.initialize import initialize
from nextword.model.shape import Shape, resolve_shape
from nextword.model.transformer import Transformer
from nextword.objectives import Objective, find_objective
from nextword.objectives.causal import visible_positions
from nextword.prediction.loading import FACTS, with_source
from nextword.rendering.progress import Progress, duration
from nextword.rendering.training import describe_start
from nextword.run import SETTINGS, Run, facts_of, go_back, new_folder, open_resumed, save
from nextword.settings import Settings, as_toml
from nextword.targets.windows import Mixture, Windows
from nextword.training.batches import batch_reader
from nextword.training.checkpoint import (
    restore_optimizers,
)
from nextword.training.loop import Plan, Training
from nextword.training.optimizers import build_optimizers, check_name, groups_of
from nextword.training.options import MATRIX_RATE, MATRIX_RATE_MASKED, RATE, RATE_MASKED
from nextword.training.plan import default_context, make_plan
from nextword.training.step import LanguageModelLoss, accumulate
from nextword.vocabulary.leakage_report import check_leaks
from nextword.vocabulary.prepared import Prepared, open_prepared
from nextword.vocabulary.training_data import gather
from nextword.warm_start import WarmStart, find_warm_start, objective_for_text

STORIES_DECAY_POWER, STORIES_DECAY_POWER_MASKED = 4.0, 3.0


def train(
    paths: Sequence[str],
    settings: Settings,
    *,
    name: str | None = None,
    start: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train a model on text.

    Args:
        paths: files, folders, globs or "-"; none for a built-in corpus.
        settings: everything else.
        name: of the run; default: the corpus's name and a number.
        start: a run, RUN@500 or a model folder whose weights and vocabulary to begin with.
        progress: where to say what happens.

    Returns:
        the finished run.

    Raises:
        NextwordError: with one clear line, before anything is written, where the input is wrong.
        Interrupted: on Ctrl-C, after saving.
    """
    progress = progress or Progress(quiet=True)
    check_name(settings.training)
    warm_start = None if start is None else find_warm_start(start, settings)
    settings = settings if warm_start is None else warm_start.settings
    objective = objective_for_text(settings.objective)
    causal = objective.attention == "before"
    resolve_shape(settings.model, 256, 256, causal=causal)  # refuses sizes before any text is read
    fresh = not paths and settings.corpus.builtin == "stories"
    settings = _with_defaults(settings, objective, fresh, warm_start)
    folder = new_folder(name, paths, settings.corpus.builtin)
    machine = choose_machine(settings.machine)
    ranks = join_ranks(machine.device)
    if not ranks.is_first:
        ranks.wait()  # until the first has prepared the text, to find it then
    prepared = gather(paths, settings.corpus, with_source(settings.vocabulary), progress.say)
    if ranks.is_first:
        check_leaks(prepared, progress.say)
        ranks.wait()
    train_tokens = len(prepared.train)
    if warm_start is not None:
        shape = warm_start.fit(settings.model, train_tokens)
    else:
        context = default_context(settings.model, train_tokens)
        shape = resolve_shape(settings.model, len(prepared.vocabulary), context, causal=causal)
    windows_of(prepared, shape.context, 1, 0)  # refuses a text that does not fill one context
    plan = make_plan(
        settings.training,
        shape,
        train_tokens,
        fresh=fresh,
        device=machine.device.type,
        ranks=ranks.size,
    )
    run = Run(folder, settings, prepared, shape, plan, machine, progress, ranks)
    run.warm_start = warm_start
    if ranks.is_first:
        folder.mkdir(parents=True, exist_ok=False)
        (folder / SETTINGS).write_text(as_toml(settings), encoding="utf-8")
        write_json(folder / FACTS, facts_of(run, paths))
        write_pins(folder, choose_pins(prepared, settings.explanation, shape.context))
    ranks.wait()
    return _fit(run, first_step=0, checkpoint=None)


def windows_of(prepared: Prepared, context: int, rows: int, seed: int) -> Windows | Mixture:
    """Say which windows of the text belong to which step: a mixture where there are several.

    Raises:
        CorpusError: a text does not fill one context.
    """
    portions = prepared.portions
    windows = [
        Windows(len(portion.train), context, rows, seed + number)
        for number, portion in enumerate(portions)
    ]
    if len(portions) == 1:
        return windows[0]
    return Mixture(tuple(windows), tuple(portion.weight for portion in portions), rows, seed)


def _with_defaults(
    settings: Settings, objective: Objective, fresh: bool, warm_start: WarmStart | None
) -> Settings:
    """Resolve what depends on text and objective, so that a resumed run finds it written down."""
    # Who has learned much already is not to forget it: a wide network begun elsewhere goes slower.
    narrower = 1.0 if warm_start is None else min(1.0, (128 / warm_start.shape.hidden_size) ** 2)
    corpus, training, masked = settings.corpus, settings.training, objective.attention == "both"
    if corpus.stories is None:
        stories = STORIES_MASKED if masked else STORIES
        corpus = dataclasses.replace(corpus, stories=stories)
    if training.decay_power is None:
        gentle = STORIES_DECAY_POWER_MASKED if masked else STORIES_DECAY_POWER
        power = gentle if fresh else 1.0
        training = dataclasses.replace(training, decay_power=power)
    if training.learning_rate is None:
        rate = narrower * (RATE_MASKED if masked else RATE)
        training = dataclasses.replace(training, learning_rate=rate)
    if training.matrix_learning_rate is None:
        rate = narrower * (MATRIX_RATE_MASKED if masked else MATRIX_RATE)
        training = dataclasses.replace(training, matrix_learning_rate=rate)
    return dataclasses.replace(settings, corpus=corpus, training=training)


def resume(target: str, *, steps: int | None = None, progress: Progress | None = None) -> Run:
    """Go on with a run from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        target: the run, or RUN@STEP to go on from there.
        steps: train to this step instead of the run's own last.
        progress: where to say what happens.

    Raises:
        RunError: there is nothing to go on with.
    """
    progress = progress or Progress(quiet=True)
    resumed = open_resumed(target, steps)
    folder, facts, settings = resumed.folder, resumed.facts, resumed.settings
    if "prepared" not in facts:
        raise RunError(
            f"{folder.name}: learned from examples; nextword.finetune.resume goes on with it"
        )
    machine = choose_machine(settings.machine)
    plan = dataclasses.replace(Plan(**facts["plan"]), steps=resumed.steps)
    prepared = open_prepared(Path(facts["prepared"]))
    ranks = join_ranks(machine.device)
    run = Run(folder, settings, prepared, Shape(**facts["shape"]), plan, machine, progress, ranks)
    if ranks.is_first:
        go_back(resumed, machine, progress)
    ranks.wait()
    return _fit(run, first_step=resumed.checkpoint.step, checkpoint=resumed.checkpoint.folder)


def _fit(run: Run, first_step: int, checkpoint: Path | None) -> Run:
    """Build the network, train it, and sum up."""
    model = Transformer(run.shape)
    if checkpoint is not None:
        _load_weights(model, checkpoint)
    elif run.warm_start is not None:
        model.load_state_dict(run.warm_start.weights)
    else:
        initialize(model, run.settings.training.seed)
    model.to(run.machine.device)
    model.set_precision(run.machine.precision)
    optimizers = build_optimizers(groups_of(model), run.settings.training)
    if checkpoint is not None:
        restore_optimizers(checkpoint, model, optimizers)
    training = _assemble(run, model, optimizers)
    if run.ranks.is_first:
        run.progress.say(
            describe_start(
                run.prepared.facts,
                run.prepared.folder,
                run.shape,
                run.plan,
                str(run.machine),
                run.folder,
            )
        )
        _estimate(run, training, first_step)
    calls = callbacks(run, model, optimizers)

    def keep(step: int) -> None:
        if run.ranks.is_first:
            save(run, model, optimizers, step, None)

    began = time.monotonic()
    fit(
        training,
        first_step,
        calls,
        folder=run.folder,
        progress=run.progress,
        save=keep,
        rate="--training.learning-rate",
    )
    run.seconds = time.monotonic() - began
    if run.ranks.is_first:
        run.summary = sum_up(run)
        run.progress.say(run.summary)
    return run


def _assemble(
    run: Run, model: Transformer, optimizers: Sequence[torch.optim.Optimizer]
) -> Training:
    training = run.settings.training
    many = run.prepared.train.num_documents > 1 and training.within_documents
    vocabulary, objective = run.prepared.vocabulary, find_objective(run.settings.objective.name)
    loss: nn.Module = LanguageModelLoss(
        model,
        precision=run.machine.precision,
        end_id=vocabulary.end_id if many else None,
        sees=objective.sees or visible_positions,
    )
    if run.ranks.size > 1:
        loss = nn.parallel.DistributedDataParallel(loss)
    windows = windows_of(run.prepared, run.shape.context, run.plan.rows, training.seed)
    streams = [portion.train for portion in run.prepared.portions]
    read = batch_reader(
        objective, streams, windows, vocabulary, run.settings.objective, training.seed
    )
    everywhere = objective.attention == "before"
    return Training(
        loss, model, optimizers, read, run.plan, training, run.machine, run.ranks, everywhere
    )


def _estimate(run: Run, training: Training, first_step: int) -> None:
    """Say how long it will take, from two steps' gradients computed and thrown away."""
    left = run.plan.steps - first_step
    if left < 50:
        return
    batch = training.read(first_step, slice(0, run.plan.micro_rows))
    parts = -(-run.plan.rows // (run.plan.micro_rows * run.ranks.size))
    for _ in range(2):
        began = time.perf_counter()
        accumulate(training.loss, [batch], run.plan.batch_tokens, run.machine.device)
        run.machine.synchronize()
        seconds = time.perf_counter() - began
    training.model.zero_grad(set_to_none=True)
    run.progress.say(f"about {duration(1.1 * seconds * parts * left)} for {left:,} steps")


def _load_weights(model: Transformer, folder: Path) -> None:
    model.load_state_dict(read_model(folder).state_dict())
