"""Task of language modeling: learn from text, judged on held-out text and pinned sentences."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nextword.base.errors import RunError
from nextword.callbacks import (
    Counting,
    Judged,
    better_before,
    evaluated_tokens,
    evaluation_every,
    show,
    whole_and_better,
)
from nextword.explanation.curve import gain_of_a_layer, last_quarter
from nextword.explanation.previews import beginning_of, floor_of
from nextword.explanation.replay import (
    as_event,
    choose_pins,
    judge_pins,
    read_pins,
    replay_every,
    write_pins,
)
from nextword.explanation.ruler import (
    count_pieces,
    gain_of_doubling,
    measure_ruler,
    training_documents,
)
from nextword.fit import Task
from nextword.machine.parts import fill_all
from nextword.machine.ranks import Ranks
from nextword.model.bigrams import Bigrams, begin_with_bigrams
from nextword.model.folder import read_weights
from nextword.model.induction import suits
from nextword.model.initialize import initialize
from nextword.model.transformer import Transformer
from nextword.objectives import Objective, find_objective
from nextword.objectives.causal import documents_of
from nextword.prediction.divided import tokens_at_once
from nextword.prediction.evaluate import Evaluation, evaluate
from nextword.prediction.lessons import Lessons, expectations
from nextword.prediction.masked import evaluate_masked
from nextword.prediction.ngram import KneserNey
from nextword.prediction.soft_targets import MOST_COUNTED
from nextword.prediction.teachers import digests_of, find_teachers
from nextword.prediction.writer import Writer
from nextword.rendering.ruler import sentence, sentence_at_hidden
from nextword.rendering.training import (
    describe_by_heart,
    describe_counting,
    describe_end,
    describe_evaluation,
    describe_start,
    describe_what_helps,
)
from nextword.run import Run
from nextword.targets.batch import Batch
from nextword.targets.windows import Mixture, Windows
from nextword.training.batches import batch_reader
from nextword.training.checkpoint import list_checkpoints
from nextword.training.dividing import begin_divided, meshes_of
from nextword.training.dropout import Dropout
from nextword.training.journal import Journal
from nextword.training.loop import Callback, TrainerState
from nextword.training.spreading import spread_rows
from nextword.training.step import LanguageModelLoss
from nextword.vocabulary.prepared import Prepared
from nextword.warm_start import WarmStart


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


def bigrams_of(prepared: Prepared) -> Bigrams:
    """Count how often which token follows which in the training part, smoothed by Kneser–Ney."""
    size, end_id = len(prepared.vocabulary), prepared.vocabulary.end_id
    documents = list(training_documents(prepared, MOST_COUNTED))
    frequency = np.bincount(np.concatenate(documents), minlength=size)
    pairs = KneserNey(2, size, end_id).learn(documents, MOST_COUNTED).pairs()
    return Bigrams(
        torch.from_numpy(pairs.x),
        torch.from_numpy(pairs.y),
        torch.from_numpy(pairs.probability).float(),
        torch.from_numpy(pairs.backoff).float(),
        torch.from_numpy(pairs.below).float(),
        torch.from_numpy(frequency / frequency.sum()).float(),
    )


class LanguageModeling(Task):
    """Learn from text: what comes next, or what is hidden."""

    rate = "--training.learning-rate"
    lengths_vary = False

    def __init__(self, run: Run, prepared: Prepared, warm_start: WarmStart | None) -> None:
        """Lay the text out in windows.

        Args:
            run: how often and how much of it is read.
            prepared: the text.
            warm_start: the weights to begin with; None for random ones.
        """
        self.prepared, self.warm_start = prepared, warm_start
        self.teachers = run.training.teacher
        self.objective: Objective = find_objective(run.settings.objective.name)
        self.every_token_is_a_target = self.objective.attention == "before"
        seed = run.training.seed
        windows = windows_of(prepared, run.shape.context, run.plan.read, seed)
        streams = [portion.train for portion in prepared.portions]
        batches = batch_reader(
            self.objective, streams, windows, run.vocabulary, run.settings.objective, seed
        )
        soft, written = run.training.soft_targets or 0.0, run.plan.written
        text, apart = (prepared.train, len(run.vocabulary)), run.training.within_documents
        self.lessons = Lessons(
            *(batches, windows, len(prepared.train), run.pace),
            soft_targets=expectations(prepared, run.training, run.machine) if soft else None,
            soft_share=soft,
            writer=Writer(*text, run.shape.context, seed, apart=apart) if written else None,
            written=written,
        )
        self.suit(run)
        self.counting = Counting(prepared)
        self.final: Evaluation | None = None
        """The score of what is kept on the whole hold-out."""
        self.overfit: tuple[int, int] | None = None
        """The steps of what is kept and of the last, where that had learned by heart."""

    def suit(self, run: Run) -> None:
        """Leave out of the layers what a run does, whose network may be of another size."""
        size = run.shape.num_hidden_layers, run.shape.hidden_size
        self.dropout = Dropout(run.training.dropout or 0.0, *size, run.training.seed)

    def model(self, run: Run) -> Transformer:
        """Return random weights, another model's, or those to go on with."""
        divides, meshes = run.ranks.divides_weights, meshes_of(run.ranks)
        model = begin_divided(run.shape, run.ranks, meshes) if divides else Transformer(run.shape)
        if run.saved is not None:
            read_weights(model, run.saved.folder)
        elif self.warm_start is not None:
            fill_all(model, self.warm_start.weights)
        else:
            initialize(model, run.training.seed)
            if run.training.initialization == "bigram":
                begin_with_bigrams(model, bigrams_of(self.prepared), run.training.seed)
        if not divides:
            model.to(run.machine.device)
            spread_rows(model, None, meshes.context)
        model.set_precision(run.machine.precision)
        return model

    def loss(self, run: Run, model: Transformer) -> nn.Module:
        """Return cross-entropy, documents kept apart."""
        apart = self.prepared.train.num_documents > 1 and run.training.within_documents
        return LanguageModelLoss(
            model,
            precision=run.machine.precision,
            end_id=run.vocabulary.end_id if apart else None,
            documents_of=self.objective.documents or documents_of,
        )

    def read(self, step: int, rows: slice) -> Batch:
        """Return some rows of a step, and what the network is to do without in each."""
        return self.dropout.of(self.lessons.read(step, rows), step, rows)

    def facts(self) -> Mapping[str, Any]:
        """Return which text it is, and whose expectations are learned beside it."""
        prepared, taught = self.prepared, digests_of(find_teachers(self.teachers))
        where = str(prepared.folder.absolute())
        return {"prepared": where, "corpus": prepared.facts, "teachers": taught}

    def describe(self, run: Run) -> str:
        """Say what will be trained on what."""
        prepared, machine = self.prepared, str(run.machine)
        counted = run.training.initialization == "bigram" and run.saved is None
        begins = "the odds of pairs of tokens, as counted in the text" if counted else ""
        if counted and suits(run.shape):
            begins += ",\n            and with attention that finds where they stood before"
        return describe_start(
            *(prepared.facts, prepared.folder, run.shape, run.plan, machine, run.folder),
            begins=begins,
            soft=self.lessons.soft_share,
            teachers=len(find_teachers(self.teachers)) + len(run.teachers),
            dropout=self.dropout.share,
        )

    def callbacks(self, run: Run, model: Transformer) -> Sequence[Callback]:
        """Judge the pinned sentences, more often while much changes; wherever weights are kept."""
        if run.saved is None and run.ranks.is_first:
            pins = choose_pins(self.prepared, run.settings.explanation, run.shape.context)
            write_pins(run.folder, pins)
        if run.ranks.is_first and model.shape.causal:
            self.counting.begin(run)
        if run.ranks.divides_weights:
            run.ranks.wait()
        pins = read_pins(run.folder, run.shape)
        journal, judged_at = Journal(run.folder), [TrainerState(-1)]

        def replay(state: TrainerState) -> None:
            if state is judged_at[0]:  # due for more than one reason
                return
            judged_at[0] = state
            start = time.perf_counter()
            judged = judge_pins(model, run.vocabulary, pins)
            if run.ranks.is_first:
                journal.write(as_event(state.step, judged, time.perf_counter() - start))

        if not pins:
            return ()
        often = replay_every(run.settings.explanation, run.plan.steps)
        kept = [evaluation_every(run), run.training.checkpoint_every or 0]
        return [
            Callback(often, replay, at_start=True),
            *(Callback(every, replay) for every in kept if every),
        ]

    def judge(self, run: Run, model: Transformer, state: TrainerState) -> Judged | None:
        """Score a part of the hold-out, and all of it at the end; the first writes a sample."""
        partial = scores = self._score(run, model, evaluated_tokens(run))
        if state.is_last:
            if partial.tokens < len(self.prepared.holdout):
                scores = self._score(run, model, None)
            self.final = scores
        figures = {
            key: value for key, value in scores.as_dict().items() if key != "loss_by_context"
        }
        shown = show(run, model, self.prepared, state.step)
        more = {
            "partial_nats_per_token": partial.nats_per_token,
            "whole": state.is_last,
            "sample": shown.sample,
        }
        run.saver.wait_for_all(run.ranks)
        if not run.ranks.is_first:
            return None
        words = describe_evaluation(state.step, scores, shown.sample, shown.preview)
        if model.shape.causal:
            counted = self.counting.of(None if state.is_last else evaluated_tokens(run))
            words += f"\n  {describe_counting(scores, counted)}"
        if best := better_before(run, partial.nats_per_token):
            words += f"\n  {describe_by_heart(best)}"
        return Judged(partial.nats_per_token, {**figures, **more}, words)

    def _score(
        self, run: Run, model: Transformer, max_tokens: int | None, ranks: Ranks | None = None
    ) -> Evaluation:
        settings, prepared = run.settings, self.prepared
        most = tokens_at_once(settings.evaluation.batch_tokens, max_tokens)
        evaluation = replace(settings.evaluation, batch_tokens=most)
        if not model.shape.causal:
            return evaluate_masked(
                model,
                prepared.holdout,
                run.vocabulary,
                evaluation,
                settings.objective,
                max_tokens=max_tokens,
                ranks=ranks or run.ranks,
            )
        return evaluate(
            model,
            prepared.holdout,
            evaluation,
            max_tokens=max_tokens,
            withheld=prepared.bits_withheld,
            count_bytes=run.vocabulary.count_bytes,
            ranks=ranks or run.ranks,
        )

    def conclude(self, run: Run, model: Transformer) -> None:
        """Score the best checkpoint, where that is what is kept."""
        told = -1, -1
        if run.ranks.is_first:
            ended = list_checkpoints(run.folder)[-1]
            best = whole_and_better(run, ended.holdout_loss)
            told = best.step if best else -1, ended.step
        run.ranks.wait_for_first("the last checkpoint")  # however long that has taken
        kept, last = map(int, run.ranks.most(*told))
        if kept >= 0:
            self.overfit = kept, last
            self.final = self._score(run, model, None, self._go_back(run, model, kept))
        elif self.final is None:  # trained before, and killed before it could tell
            self.final = self._score(run, model, None)

    def _go_back(self, run: Run, model: Transformer, step: int) -> Ranks:
        """Read an earlier checkpoint; return those who have read it, and score it together.

        Raises:
            RunError: a disk does not show it, and a share of it is needed there.
        """
        saved = list_checkpoints(run.folder)
        found = next((point for point in saved if point.step == step), None)
        all_see_it = not any(run.ranks.most(found is None))
        if not all_see_it and run.ranks.divides_weights:
            raise RunError(
                f"{run.folder.name}@{step}: not every process sees it; `--resume` scores it when "
                "all do"
            )
        if found is not None:
            read_weights(model, found.folder)
        return run.ranks if all_see_it else Ranks()

    def sum_up(self, run: Run) -> str:
        """Say how the run ended; return the sentence that judges its loss, or nothing."""
        assert self.final is not None
        journal, floor = Journal(run.folder), floor_of(self.prepared, self.final)
        if floor is not None:
            nats, share = floor.excess(self.final.nats_per_token)
            figures = {"nats_per_token": floor.nats_per_token, "above": nats, "share": share}
            journal.write({"event": "floor", "step": run.pace.steps, **figures})
        # Said before anything else is measured: a finished run must not lose its last words.
        run.progress.say(
            describe_end(
                *(run.folder, self.final, run.seconds, len(run.vocabulary)),
                *(floor, self.overfit, beginning_of(self.prepared)),
            )
        )
        if self.final.at_hidden:
            counted = count_pieces(self.prepared)
            size = run.shape.vocab_size
            return f"\n{sentence_at_hidden(self.final.nats_per_token, counted, size)}"
        ruler = measure_ruler(
            self.prepared,
            self.final,
            model="this model",
            floor_nats=None if floor is None else floor.nats_per_token * self.final.tokens,
        )
        journal.write({"event": "ruler", "step": run.pace.steps, **ruler.as_dict()})
        if floor is not None:
            return f"\n{sentence(ruler)}"
        told = [
            (event["step"], event["partial_nats_per_token"])
            for event in journal.read("evaluation")
            if event.get("partial_nats_per_token") is not None
        ]
        fell = last_quarter(told)
        helps = describe_what_helps(
            gain_of_doubling(self.prepared),
            None if fell is None else gain_of_a_layer(fell),
            paths=run.paths,
            num_bytes=self.prepared.facts["bytes"],
            has_begun=run.warm_start is not None,
            teacher=run.folder.name if self.lessons.soft_share and not self.teachers else None,
            layers=run.shape.num_hidden_layers,
            seconds=run.seconds,
        )
        return f"\n{sentence(ruler)}\n{helps}"


@dataclass(frozen=True)
class Pretrained:
    """A run that learned from text."""

    folder: Path
    prepared: Prepared
    vocab_size: int
    """Of the network."""
    seconds: float
    """That training took."""
    final: Evaluation | None
    """The score of what is kept, on the whole hold-out."""
    summary: str
    """What judges the loss, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        known = {
            key: self.prepared.facts.get(key) for key in ("entries", "entries_asked", "reading")
        }
        size = {"vocab_size": self.vocab_size}
        figures = {} if self.final is None else self.final.as_dict()
        return {"run": str(self.folder), "seconds": self.seconds, **known, **size, **figures}
