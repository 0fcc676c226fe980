"""Pretraining: from text to a trained model, in one straight script; the file to read first.

    text → documents → vocabulary → shards → windows → network → loss → steps → checkpoints → a
    summary

Run it with `nextword train`, or from Python with `nextword.train(...)`.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nextword.base.errors import RunError, SettingsError
from nextword.corpus.hub import pin
from nextword.corpus.options import STORIES, STORIES_MASKED
from nextword.explanation.forecast import Forecast
from nextword.fit import fit
from nextword.forecast import forecast, go_on_by_clock, within
from nextword.language_modeling import LanguageModeling, Pretrained, windows_of
from nextword.machine.device import choose_machine
from nextword.machine.ranks import join_ranks
from nextword.model.shape import ModelSettings, Shape, resolve_shape
from nextword.objectives import Objective
from nextword.prediction.lessons import with_soft_targets
from nextword.prediction.loading import with_source
from nextword.prediction.teachers import (
    check_teachers,
    check_unchanged,
    find_teachers,
    with_teachers,
)
from nextword.rendering.formatting import argument
from nextword.rendering.progress import Progress
from nextword.run import Clock, Interrupted, Run, new_folder, open_resumed, write_recipe
from nextword.settings import Settings
from nextword.training.dividing import arranged, check_heads
from nextword.training.journal import Journal
from nextword.training.loop import Plan
from nextword.training.optimizers import check_name
from nextword.training.options import MATRIX_RATE, MATRIX_RATE_MASKED, RATE, RATE_MASKED
from nextword.training.plan import (
    OWN_CONTEXT,
    TAUGHT,
    USUAL_CONTEXT,
    check_memory,
    default_context,
    default_depth,
    default_dropout,
    make_plan,
)
from nextword.training.saver import Saver
from nextword.vocabulary.leakage_report import check_leaks
from nextword.vocabulary.prepared import Prepared, open_prepared
from nextword.vocabulary.training_data import gather
from nextword.warm_start import WarmStart, find_warm_start, objective_for_text

STORIES_DECAY_POWER, STORIES_DECAY_POWER_MASKED = 2.0, 3.0


def train(
    paths: Sequence[str],
    settings: Settings,
    *,
    name: str | None = None,
    start: str | None = None,
    progress: Progress | None = None,
    began: float | None = None,
) -> Pretrained:
    """Train a model on text.

    Args:
        paths: files, folders, globs or "-"; none for a built-in corpus.
        settings: everything else.
        name: of the run; default: the corpus's name and a number.
        start: a run, RUN@500 or a model folder whose weights and vocabulary to begin with.
        progress: where to say what happens.
        began: when the command was given, by `time.monotonic`, where it is to end by the clock;
            default: now.

    Returns:
        the finished run.

    Raises:
        NextwordError: with one clear line, before anything is written, where the input is wrong.
        Interrupted: on Ctrl-C, after saving.
    """
    began = time.monotonic() if began is None else began
    run, prepared, warm_start, lay = _lay_out(
        *(paths, settings),
        name=name,
        start=start,
        progress=progress or Progress(quiet=True),
        began=began,
    )
    if run.teachers:
        run = _taught(run, prepared, began, lay, settings.training.soft_targets)
    return _learn(run, prepared, warm_start)


def foresee(
    paths: Sequence[str],
    settings: Settings,
    *,
    start: str | None = None,
    progress: Progress | None = None,
) -> Forecast:
    """Say what a run would take and come to, without training it.

    Args:
        paths: as `train` takes them.
        settings: as `train` takes them.
        start: as `train` takes it.
        progress: where to say what happens.

    Returns:
        what is foreseen.

    Raises:
        NextwordError: as `train`.
    """
    if settings.machine.tensor * settings.machine.context > 1:
        raise SettingsError(
            "what is foreseen is one process's; `nextword plan` says what machine.tensor and "
            "machine.context come to"
        )
    progress = progress or Progress(quiet=True)
    run, prepared, warm_start, _ = _lay_out(paths, settings, start=start, progress=progress)
    task = LanguageModeling(run, prepared, warm_start)
    if run.teachers:
        task.lessons.soft_share = settings.training.soft_targets or TAUGHT
    progress.say(task.describe(run))
    return forecast(run, task)


def _lay_out(
    paths: Sequence[str],
    settings: Settings,
    *,
    name: str | None = None,
    start: str | None,
    progress: Progress,
    began: float | None = None,
) -> tuple[Run, Prepared, WarmStart | None, Callable[[Settings], Run]]:
    """Prepare the text and decide all that a new run needs to know, and how to lay out others."""
    began = time.monotonic() if began is None else began
    check_name(settings.training)
    paths = [pin(path) for path in paths]
    warm_start = None if start is None else find_warm_start(start, settings)
    settings = settings if warm_start is None else warm_start.settings
    no_size = dataclasses.replace(settings.model, tie_word_embeddings=None) == ModelSettings()
    objective = objective_for_text(settings.objective)
    causal = objective.attention == "before"
    resolve_shape(settings.model, 256, 256, causal=causal)  # refuses sizes before any text is read
    fresh = not paths and settings.corpus.builtin == "stories"
    settings = _with_defaults(settings, objective, fresh, warm_start)
    training, teachers = with_teachers(settings.training, causal=causal)
    folder = new_folder(name, paths, settings.corpus.builtin)
    machine = choose_machine(settings.machine)
    ranks = arranged(join_ranks(machine.device), settings.machine)
    if not ranks.is_first:
        ranks.wait_for_first("text")  # to find it prepared then
    prepared = gather(paths, settings.corpus, with_source(settings.vocabulary), progress.say)
    if ranks.is_first:
        check_leaks(prepared, progress.say)
        ranks.wait_for_first("text")
    usual = causal and not fresh and warm_start is None
    training = with_soft_targets(training, prepared, causal=causal, usual=usual)
    settings = dataclasses.replace(settings, training=training)
    if usual and no_size and len(prepared.portions) == 1:
        depth = default_depth(len(prepared.train))
        settings = dataclasses.replace(
            settings, model=dataclasses.replace(settings.model, depth=depth)
        )
    dropout = settings.training.dropout
    long = OWN_CONTEXT if causal and not fresh else USUAL_CONTEXT

    def of_depth(settings: Settings, depth: int | None, context: int | None = None) -> Shape:
        model = (
            settings.model if depth is None else dataclasses.replace(settings.model, depth=depth)
        )
        context = context or default_context(model, len(prepared.train), long)
        return resolve_shape(model, len(prepared.vocabulary), context, causal=causal)

    def lay(settings: Settings) -> Run:
        """Size the network and count the steps, by settings that may name another depth."""
        train_tokens = len(prepared.train)
        if warm_start is not None:
            shape = warm_start.fit(settings.model, train_tokens)
        else:
            context = default_context(settings.model, train_tokens, long)
            shape = of_depth(settings, None, context)
        smaller = None if warm_start is not None else partial(of_depth, settings)
        check_heads(shape, ranks)
        least = ranks.least_share(settings.machine.parallel, machine.device)
        check_memory(shape, settings.training, machine, smaller, least)
        windows_of(prepared, shape.context, 1, 0)  # refuses a text that does not fill one context
        if dropout is None:
            share = default_dropout(settings.training.soft_targets or 0.0, shape.num_hidden_layers)
            training = dataclasses.replace(settings.training, dropout=share)
            settings = dataclasses.replace(settings, training=training)
        plan = make_plan(
            settings.training,
            shape,
            train_tokens,
            fresh=fresh,
            device=machine.device.type,
            ranks=ranks.groups,
            together=ranks.together,
        )
        return Run(
            *(folder, settings, prepared.vocabulary, shape, plan, settings.training),
            *(machine, progress, paths, ranks),
            warm_start=None if warm_start is None else warm_start.folder,
        )

    run = lay(settings)
    check_teachers(teachers, prepared.vocabulary, run.shape.context)
    if settings.training.minutes is not None:
        run = within(run, prepared, warm_start, began=began, lay=lay if no_size else None)
    return run, prepared, warm_start, lay


def _taught(
    run: Run,
    prepared: Prepared,
    began: float,
    lay: Callable[[Settings], Run],
    soft_targets: float | None,
) -> Run:
    """Train networks that teach one another, as long as there is time for one more after each.

    Args:
        run: by the clock, with teachers.
        prepared: its text.
        began: when the command was given.
        lay: lays a run out by other settings.
        soft_targets: how much of each target is what they expect, where that was said.

    Returns:
        the run that learns from all of them.
    """
    trained: list[str] = []
    while run.teachers:
        one, *others = run.teachers
        seed, steps = run.training.seed + len(trained) + 1, one.plan.steps
        alone = dataclasses.replace(one.training, minutes=None, steps=steps, seed=seed)
        settings = dataclasses.replace(one.settings, training=alone)
        folder = new_folder(None, [f"{run.folder.name}-teacher"], "")
        layers = one.shape.num_hidden_layers
        run.progress.say(f"teacher     {layers} layers, which the next network learns from")
        trained.append(str(folder))
        one = dataclasses.replace(one, settings=settings, training=alone, folder=folder)
        try:
            _learn(dataclasses.replace(one, saver=Saver()), prepared, brief=True)
        except Interrupted:
            text = " ".join(map(argument, run.paths))
            teachers = argument(",".join(Path(one).name for one in trained))
            run.progress.say(
                "            what it was to teach is trained after it by: nextword train "
                f"{text} --training.teacher {teachers}"
            )
            raise
        training = dataclasses.replace(
            run.training,
            teacher=",".join(map(str, find_teachers(",".join(trained)))),
            soft_targets=soft_targets or TAUGHT,
        )
        next_one = [*others, run][0].shape.num_hidden_layers
        model = dataclasses.replace(run.settings.model, depth=next_one)
        settings = dataclasses.replace(run.settings, model=model, training=training)
        run = within(lay(settings), prepared, None, began=began, lay=lay, trained=len(trained))
    return run


def _learn(
    run: Run, prepared: Prepared, warm_start: WarmStart | None = None, *, brief: bool = False
) -> Pretrained:
    """Train, and sum up: of a run that is there for another one in a line."""
    task = LanguageModeling(run, prepared, warm_start)
    summary: list[str] = []

    def end() -> None:
        if run.training.minutes is not None or run.pace.scales:
            write_recipe(run)
        summary.append(f"teacher     {run.folder}" if brief else task.sum_up(run))
        run.progress.say(summary[0])
        Journal(run.folder).write({"event": "end", "step": run.pace.steps})

    fit(run, task, end)
    size = run.shape.vocab_size
    return Pretrained(run.folder, prepared, size, run.seconds, task.final, "".join(summary))


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
    settings = dataclasses.replace(settings, corpus=corpus, training=training)
    if warm_start is None:
        return _with_first_weights(settings, objective, fresh)
    if training.initialization is not None:
        raise SettingsError(
            f"training.initialization = {training.initialization!r}: with --from the first weights "
            "are that model's; leave it out"
        )
    return settings


def _with_first_weights(settings: Settings, objective: Objective, fresh: bool) -> Settings:
    """Resolve what training begins with, and whether one matrix reads and predicts.

    Raises:
        SettingsError: bigram odds are asked for where they cannot be given.
    """
    asked, tied = settings.training.initialization, settings.model.tie_word_embeddings
    masked = objective.attention == "both"
    if asked == "bigram" and (masked or tied):
        why = "a masked model reads both sides" if masked else "one matrix reads and predicts"
        hint = "" if masked else "; leave model.tie_word_embeddings out"
        raise SettingsError(
            f"training.initialization = 'bigram': {why}, so the odds of the next token cannot be "
            f"given to it{hint}"
        )
    if asked is None:
        # The stories are there to be watched from nothing.
        asked = "random" if masked or tied or fresh else "bigram"
    tied = asked == "random" if tied is None else tied
    return dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, tie_word_embeddings=tied),
        training=dataclasses.replace(settings.training, initialization=asked),
    )


def resume(
    target: str,
    *,
    steps: int | None = None,
    machine: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """Go on with a run from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        target: the run, or RUN@STEP to go on from there.
        steps: train to this step instead of the run's own last.
        machine: how several processes divide the work (`parallel`, `tensor`, `context`), where that
            is to be another way.
        progress: where to say what happens.

    Raises:
        RunError: there is nothing to go on with.
    """
    resumed = open_resumed(target, steps)
    facts, settings = resumed.facts, resumed.settings
    if "prepared" not in facts:
        raise RunError(
            f"{resumed.folder.name}: learned from examples; nextword.finetune.resume goes on with "
            "it"
        )
    computing = dataclasses.replace(settings.machine, **(machine or {}))
    settings = dataclasses.replace(settings, machine=computing)
    here = choose_machine(computing)
    plan = dataclasses.replace(Plan(**facts["plan"]), steps=resumed.steps)
    prepared = open_prepared(Path(facts["prepared"]))
    left = None if resumed.checkpoint is None else resumed.checkpoint.seconds_left
    run = Run(
        *(resumed.folder, settings, prepared.vocabulary, Shape(**facts["shape"]), plan),
        *(settings.training, here, progress or Progress(quiet=True), facts["paths"]),
        arranged(join_ranks(here.device), computing),
        resumed=resumed,
        clock=None if steps or left is None else Clock(time.monotonic() + left, 0.0),
    )
    check_heads(run.shape, run.ranks)
    if run.clock is not None:
        go_on_by_clock(run, prepared)
    check_unchanged(facts.get("teachers") or {})
    warm_start = None
    if resumed.checkpoint is None and facts.get("warm_start"):
        warm_start = find_warm_start(facts["warm_start"], settings)
    return _learn(run, prepared, warm_start)
