"""Prompts and answers, or chats → a model that answers, in one straight script.

The loss counts what a person answered and nothing else; each answer's end is learned too.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.examples import Row
from nextword.explanation.look import at_full_precision
from nextword.finetune.course import Course, Rows, Taught, steps_of
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

ROLES = {"system": "System:", "user": "User:", "assistant": "Assistant:"}
"""How each line of a chat begins. A prompt for such a model ends with "Assistant:"."""


def teach_answers(course: Course, examples: Sequence[Turns]) -> Taught:
    """Train a causal model on prompts and answers.

    Args:
        course: what it begins with, where it computes, and where it is written.
        examples: as `read_turns` makes them.

    Raises:
        CorpusError: too few examples for two sides.
    """
    settings, vocabulary, shape = course.settings.finetune, course.vocabulary, course.shape
    train, holdout = _divide(examples, settings)
    model = Transformer(shape)
    if course.from_nothing:
        initialize(model, settings.seed)
    else:
        model.load_state_dict(read_model(course.origin).state_dict(), strict=True)
    model.to(course.machine.device)
    fill_id = vocabulary.end_id if vocabulary.pad_id is None else vocabulary.pad_id
    before = score_answers(model, holdout, fill_id) if holdout else None
    model.set_precision(course.machine.precision)
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

    course.say_start(len(train), len(holdout), steps, settings.batch_examples)
    loss = LanguageModelLoss(model, precision=course.machine.precision)
    tokens = sum(example.places for example in train) / len(rows)
    course.run(model, loss, read, steps, Rows(rows_a_step, width, tokens), judge)
    return Taught(course.folder, scores[-1] if scores else None, before)


def read_turns(
    rows: Sequence[Row], vocabulary: Vocabulary, settings: FinetuneSettings, context: int
) -> list[Turns]:
    """Turn rows with a prompt and an answer, or with messages, into tokens.

    Where neither the prompt ends nor the answer begins with white space, a space parts them.

    Raises:
        CorpusError: a row lacks what it needs, or is longer than the context.
    """
    found = []
    for row in rows:
        if "messages" in row.values:
            parts = _chat(row)
        else:
            prompt = row.text(settings.prompt, "--finetune.prompt")
            said = row.text(settings.answer, "--finetune.answer")
            parted = prompt[-1].isspace() or said[0].isspace()
            parts = [(prompt, False), (said if parted else f" {said}", True)]
        turns = _in_tokens(parts, vocabulary)
        if turns.places > context:
            raise CorpusError(
                f"{row.place}: {turns.places:,} tokens, and the model reads {context:,} at once; "
                "shorten the example or leave it out"
            )
        found.append(turns)
    return found


def _in_tokens(parts: Sequence[tuple[str, bool]], vocabulary: Vocabulary) -> Turns:
    inputs: list[int] = [vocabulary.end_id]
    targets: list[int] = []
    ended = False
    for text, is_answer in parts:
        for id_ in vocabulary.encode(text):
            targets.append(vocabulary.end_id if ended else id_ if is_answer else IGNORED)
            inputs.append(id_)
            ended = False
        ended = is_answer
    if not ended:  # what follows the last answer teaches nothing
        last = max(place for place, target in enumerate(targets) if target != IGNORED)
        return Turns(tuple(inputs[: last + 1]), tuple(targets[: last + 1]))
    return Turns(tuple(inputs), (*targets, vocabulary.end_id))


def _chat(row: Row) -> list[tuple[str, bool]]:
    """Write a chat as text: a line for each message, those of the assistant to be learned."""
    messages = row.values["messages"]
    parts: list[tuple[str, bool]] = []
    before = ""
    if not isinstance(messages, list) or not messages:
        raise CorpusError(f'{row.place}: "messages" is no list of messages')
    for message in messages:
        role, content = _message(row, message)
        if role == "assistant":
            parts += [(before + ROLES[role], False), (f" {content}", True)]
            before = "\n"
        else:
            parts.append((f"{before}{ROLES[role]} {content}\n", False))
            before = ""
    if not any(is_answer for _, is_answer in parts):
        raise CorpusError(f"{row.place}: no message of the assistant, so nothing to learn")
    return parts


def _message(row: Row, message: Any) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if role not in ROLES or not isinstance(content, str):
        raise CorpusError(
            f"{row.place}: a message needs a role, one of {', '.join(ROLES)}, and its content as "
            "text"
        )
    return str(role), content


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
