"""Instruction tuning: prompts and answers, or chats, with the loss on answers only.

The loss counts what a person answered and nothing else; each answer's end is learned too.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from torch import nn

from nextword.base.errors import CorpusError
from nextword.corpus.examples import Row
from nextword.finetune.chat import Piece, beginnings, ids_of, spell
from nextword.finetune.shapes import Example, Pair, read_example, shape_of
from nextword.finetune.supervised import Rows, Start, Supervised
from nextword.finetune.tally import Tally, Unusable
from nextword.model.entries import with_entries
from nextword.model.folder import read_model
from nextword.model.initialize import initialize
from nextword.model.transformer import Transformer
from nextword.objectives.answer import Turns, answer, pack
from nextword.objectives.labelled import in_order
from nextword.objectives.options import FinetuneSettings
from nextword.prediction.answers import AnswerScores, score_answers
from nextword.run import Run
from nextword.targets.batch import IGNORED, Batch
from nextword.training.plan import LONGEST_CONTEXT
from nextword.training.step import LanguageModelLoss
from nextword.vocabulary.tokenizer import Vocabulary

Taught = TypeVar("Taught")


class Answers(Supervised):
    """Learn to answer prompts: a causal model, its loss on answers only."""

    def __init__(
        self,
        start: Start,
        vocabulary: Vocabulary,
        tally: Tally,
        examples: Sequence[Turns],
        settings: FinetuneSettings,
        context: int,
    ) -> None:
        """Divide the examples, and pack them in rows.

        Args:
            start: the model to begin with.
            vocabulary: of the model.
            tally: of the rows read.
            examples: as `read_turns` makes them.
            settings: how.
            context: of the model.

        Raises:
            CorpusError: too few examples for two sides.
        """
        super().__init__(start, vocabulary, "answers", tally)
        self.train, self.holdout = divide(examples, lambda example: example.prompt, settings)
        self.learned, self.held = len(self.train), len(self.holdout)
        self.seed = settings.seed
        longest = max(example.places for example in self.train)
        width = max(longest, min(context, LONGEST_CONTEXT))
        self.packed = pack(self.train, width)
        count = len(self.packed)
        a_step = max(1, min(count, round(settings.batch_examples * count / self.learned)))
        tokens = sum(example.places for example in self.train) / count
        self.rows = Rows(a_step, width, tokens, count)

    def model(self, run: Run) -> Transformer:
        """Return the model that it begins with, scored once; or the run's own to go on with."""
        model, saved = Transformer(run.shape), run.saved
        if self.start.from_nothing:
            initialize(model, self.seed)
        else:
            known = Vocabulary.load(self.start.folder)
            new = {
                id_: ids for id_, ids in beginnings(self.vocabulary).items() if id_ >= len(known)
            }
            model.load_state_dict(with_entries(read_model(self.start.folder), new))
        model.to(run.machine.device)
        if self.holdout and (saved is None or self.start.folder != saved.folder):
            self.before = score_answers(model, self.holdout, self.fill_id)
        if saved is not None:
            model.load_state_dict(read_model(saved.folder).state_dict())
        model.set_precision(run.machine.precision)
        return model

    def loss(self, run: Run, model: Transformer) -> nn.Module:
        """Return cross-entropy."""
        return LanguageModelLoss(model, precision=run.machine.precision)

    def read(self, step: int, rows: slice) -> Batch:
        """Return some packed rows."""
        chosen = in_order(len(self.packed), self.rows.number, step, self.seed)[rows].tolist()
        return answer(
            [[self.train[one] for one in self.packed[row]] for row in chosen], self.fill_id
        )

    def score(self, model: Transformer) -> AnswerScores | None:
        """Score the answers held out."""
        return score_answers(model, self.holdout, self.fill_id) if self.holdout else None


def read_turns(
    rows: Sequence[Row],
    vocabulary: Vocabulary,
    settings: FinetuneSettings,
    context: int,
    tally: Tally | None = None,
) -> list[Turns]:
    """Turn rows with prompts and answers, or with conversations, into tokens.

    Args:
        rows: of the shapes in `nextword.finetune.shapes`.
        vocabulary: of the model.
        settings: names of the fields.
        context: the most tokens of an example.
        tally: counts what is left out; its settings say what becomes of what is too long.

    Raises:
        CorpusError: too many rows are unusable, one is too long and that is to be refused, or
            nothing is left.
    """
    tally = tally or Tally(len(rows))
    return encode_turns(read_examples(rows, settings, tally), vocabulary, context, tally)


def read_examples(
    rows: Sequence[Row], settings: FinetuneSettings, tally: Tally
) -> list[tuple[str, Example]]:
    """Read prompts with answers, or conversations, each with its place.

    Raises:
        CorpusError: too many rows are unusable.
    """
    found, chats = [], []
    for row in rows:
        try:
            example = read_example(row, settings)
        except Unusable as error:
            tally.leave(row.place, error)
            continue
        shape = shape_of(row, settings)
        tally.shapes[" + ".join(shape.fields if shape else ())] += 1
        chats.append(not isinstance(example, Pair))
        found.append((row.place, example))
    tally.check()
    tally.chats = all(chats)
    return found


def encode_turns(
    found: Sequence[tuple[str, Example]], vocabulary: Vocabulary, context: int, tally: Tally
) -> list[Turns]:
    """Turn examples into tokens, and see to those that are longer than the context.

    Raises:
        CorpusError: one is too long and that is to be refused, or nothing is left.
    """
    marked = vocabulary.marks is not None
    spelled = [
        (place, in_tokens(spell(example, marked=marked), vocabulary)) for place, example in found
    ]
    return _fitting(spelled, context, tally)


def in_tokens(pieces: Iterable[Piece], vocabulary: Vocabulary) -> Turns:
    """Encode an example, end-of-text before it and after each answer.

    Args:
        pieces: the last of them an answer.
        vocabulary: of the model.
    """
    inputs: list[int] = [vocabulary.end_id]
    targets: list[int] = []
    for piece in pieces:
        ids = ids_of(piece, vocabulary)
        inputs += ids
        targets += ids if piece.learned else [IGNORED] * len(ids)
    return Turns(tuple(inputs[:-1]), tuple(targets))


def shorten(turns: Turns, context: int) -> Turns | None:
    """Cut an example at its beginning, so that the prompt's end and all of the answer are kept.

    Of a conversation the last answers that fit are learned; one that would lose its beginning, or
    all that stands before it, is context. None where not even the last answer fits, for half an
    answer teaches to begin in its middle or never to stop.
    """
    cut = turns.places - context + 1
    targets = [IGNORED, *turns.targets[cut:]]
    if turns.targets[cut - 1] != IGNORED:  # an answer that began before the cut
        whole = next((n for n, one in enumerate(targets[1:], 1) if one == IGNORED), len(targets))
        targets[1:whole] = [IGNORED] * (whole - 1)
    if all(target == IGNORED for target in targets):
        return None
    return Turns((turns.inputs[0], *turns.inputs[cut:]), tuple(targets))


def _fitting(found: Sequence[tuple[str, Turns]], context: int, tally: Tally) -> list[Turns]:
    """Keep what fits into the context; of the rest do what the settings say."""
    asked, kept = tally.settings.too_long, []
    place, turns = max(found, key=lambda one: one[1].places)
    tokens = turns.places
    if tokens > context:
        tally.longest = place, tokens
    for place, turns in found:
        if turns.places <= context:
            kept.append(turns)
            continue
        words = f"{turns.places:,} tokens, and the model reads {context:,} at once"
        if asked == "refuse":
            raise CorpusError(
                f"{place}: {words}; shorten the example, or leave it out with --examples.too-long "
                f"drop (a context of {tokens:,} would hold all of them)"
            )
        shortened = shorten(turns, context) if asked == "truncate" else None
        if shortened is None:
            tally.leave(place, Unusable("too_long", words))
        else:
            tally.shortened += 1
            kept.append(shortened)
    if not kept and tally.longest:
        raise CorpusError(
            f"none of the {len(found):,} examples fits into the {context:,} tokens that the model "
            f"reads at once; {tally.longest[0]} has the most, {tokens:,}, and a model trained with "
            f"--model.context {tokens} would hold all of them"
        )
    return kept


def divide(
    examples: Sequence[Taught],
    prompt_of: Callable[[Taught], tuple[int, ...]],
    settings: FinetuneSettings,
) -> tuple[list[Taught], list[Taught]]:
    """Hold a share out by chance; examples with the same prompt fall on one side.

    Args:
        examples: in tokens.
        prompt_of: says an example's prompt.
        settings: share of the hold-out, and the seed.

    Raises:
        CorpusError: nothing would be left to learn from.
    """
    different = sorted({prompt_of(example) for example in examples})
    random.Random(settings.seed).shuffle(different)
    count = round(settings.holdout * len(different))
    if settings.holdout > 0:
        count = max(count, 1)
    held = set(different[:count])
    train = [example for example in examples if prompt_of(example) not in held]
    if not train:
        raise CorpusError(
            f"{len(different)} different prompts are too few to learn from some and hold others "
            "out; give more"
        )
    return train, [example for example in examples if prompt_of(example) in held]
