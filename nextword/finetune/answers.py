"""Instruction tuning: prompts and answers, or chats, with the loss on answers only.

The loss counts what a person answered and nothing else; each answer's end is learned too.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.examples import Row
from nextword.explanation.previews import at_full_precision
from nextword.finetune.chat import Piece, ids_of, spell
from nextword.finetune.loop import FinetuneLoop, FinetuneResult, Rows, SplitSizes, steps_of
from nextword.finetune.shapes import Pair, read_example, shape_of
from nextword.finetune.tally import Tally, Unusable
from nextword.model.folder import read_model
from nextword.model.initialize import initialize
from nextword.model.transformer import Transformer
from nextword.objectives.answer import Turns, answer, pack
from nextword.objectives.labelled import in_order
from nextword.objectives.options import FinetuneSettings
from nextword.prediction.answers import AnswerScores, score_answers
from nextword.targets.batch import IGNORED, Batch
from nextword.training.plan import LONGEST_CONTEXT
from nextword.training.step import LanguageModelLoss
from nextword.vocabulary.tokenizer import Vocabulary


def teach_answers(loop: FinetuneLoop, examples: Sequence[Turns]) -> FinetuneResult:
    """Train a causal model on prompts and answers.

    Args:
        loop: what it begins with, where it computes, and where it is written.
        examples: as `read_turns` makes them.

    Raises:
        CorpusError: too few examples for two sides.
    """
    settings, vocabulary, shape = loop.settings.finetune, loop.vocabulary, loop.shape
    train, holdout = _divide(examples, settings)
    sides = SplitSizes(len(train), len(holdout))
    model = Transformer(shape)
    if loop.from_nothing:
        initialize(model, settings.seed)
    else:
        model.load_state_dict(read_model(loop.start_folder).state_dict(), strict=True)
    model.to(loop.machine.device)
    fill_id = vocabulary.end_id if vocabulary.pad_id is None else vocabulary.pad_id
    is_begin = loop.resumed is None or loop.start_folder != loop.resumed.checkpoint.folder
    before = score_answers(model, holdout, fill_id) if holdout and is_begin else None
    if loop.resumed is not None:
        model.load_state_dict(read_model(loop.resumed.checkpoint.folder).state_dict(), strict=True)
    model.set_precision(loop.machine.precision)
    longest = max(example.places for example in train)
    width = max(longest, min(shape.context, LONGEST_CONTEXT))
    rows = pack(train, width)
    rows_a_step = max(1, min(len(rows), round(settings.batch_examples * len(rows) / len(train))))

    def read(step: int, part: slice) -> Batch:
        chosen = in_order(len(rows), rows_a_step, step, settings.seed)[part]
        return answer([[train[one] for one in rows[row]] for row in chosen.tolist()], fill_id)

    steps = steps_of(settings, len(rows), rows_a_step)
    scores: list[AnswerScores] = []

    def judge() -> Mapping[str, Any] | None:
        if not holdout:
            return None
        with at_full_precision(model):
            scores.append(score_answers(model, holdout, fill_id))
        return scores[-1].as_dict()

    loop.say_start(sides, steps, settings.batch_examples)
    loss = LanguageModelLoss(model, precision=loop.machine.precision)
    tokens = sum(example.places for example in train) / len(rows)
    loop.run(model, loss, read, steps, Rows(rows_a_step, width, tokens), judge, sides)
    return FinetuneResult(
        loop.folder, scores[-1] if scores else None, before, loop.tally.as_dict(*sides)
    )


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
        found.append((row.place, in_tokens(spell(example), vocabulary)))
    tally.check()
    tally.chats = all(chats)
    return _fitting(found, context, tally)


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


def _divide(
    examples: Sequence[Turns], settings: FinetuneSettings
) -> tuple[list[Turns], list[Turns]]:
    """Hold a share out by chance; examples with the same prompt fall on one side."""
    different = sorted({example.prompt for example in examples})
    random.Random(settings.seed).shuffle(different)
    count = round(settings.holdout * len(different))
    if settings.holdout > 0:
        count = max(count, 1)
    held = set(different[:count])
    train = [example for example in examples if example.prompt not in held]
    if not train:
        raise CorpusError(
            f"{len(different)} different prompts are too few to learn from some and hold others "
            "out; give more"
        )
    return train, [example for example in examples if example.prompt in held]
