"""Chat template: how a conversation is written down as one text.

    <|system|> Be brief.<|end|><|user|> Hi<|end|><|assistant|> Ho<|end|>

where each mark is one entry of the vocabulary; or, where it has none (what was taught by an earlier
version; LoRA and preferences, which add no entries; a vocabulary that leaves ids out):

    System: Be brief.
    User: Hi
    Assistant: Ho<|endoftext|>
    User: Bye
    Assistant: So long<|endoftext|>

The same is written into the model folder as a template, so that other programs, which hold a chat
as messages, ask exactly as was taught.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nextword.base.errors import EvaluationError
from nextword.finetune.shapes import Example, Pair, Turn, read_messages
from nextword.finetune.tally import Unusable
from nextword.vocabulary.tokenizer import Vocabulary

LINES = {"system": "System:", "user": "User:", "tool": "Tool:", "assistant": "Assistant:"}
"""How each line begins. What is to be answered ends with "Assistant:"."""

IN_WORDS = (
    "{{ eos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:' }}"
    "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
    "{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}"
    "{% elif message['role'] in ['system', 'user', 'tool'] %}"
    "{{ message['role'].capitalize() + ': ' + message['content'] + '\\n' }}"
    "{% else %}"
    "{{ raise_exception('a role is one of system, user, tool, assistant') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The same in Jinja, as tokenizer_config.json holds it; `generation` marks what is learned."""
WITH_MARKS = (
    "{{ eos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}"
    "{% generation %}{{ ' ' + message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% elif message['role'] in ['system', 'user', 'tool'] %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] + '<|end|>' }}"
    "{% else %}"
    "{{ raise_exception('a role is one of system, user, tool, assistant') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""With marks. The space after a mark is what a word has before it in the midst of a text: without
it a model that has read text meets pieces that it hardly knows."""
TEMPLATES = (IN_WORDS, WITH_MARKS)


Prompt = str | Sequence[Mapping[str, str]]
"""What a model is asked: a text, or a chat's messages."""


class Piece(NamedTuple):
    """A piece of an example's text, encoded by itself."""

    text: str
    learned: bool = False
    """Whether the loss counts it, and what ends it."""
    ended: bool = False
    """Whether an end stands after it: of a turn where a role is named, else of the text."""
    role: str = ""
    """Whose turn of a conversation it belongs to, where that is written with marks."""
    begins: bool = False
    """Whether the mark of its role stands before it."""


def template_for(vocabulary: Vocabulary) -> str:
    """Return the template by which conversations are taught to a model of a vocabulary."""
    return IN_WORDS if vocabulary.marks is None else WITH_MARKS


def spell(example: Example, *, marked: bool) -> Iterator[Piece]:
    """Write an example down.

    Where neither a prompt ends nor its answer begins with white space, a space parts them. In
    words, what stands between two answers is one piece, encoded as whoever asks writes it.

    Args:
        example: a prompt with its answer, or a conversation.
        marked: whether the vocabulary has marks for the turns of a conversation.
    """
    if isinstance(example, Pair):
        prompt, answer = example
        parted = prompt[-1].isspace() or answer[0].isspace()
        yield Piece(prompt)
        yield Piece(answer if parted else f" {answer}", learned=True, ended=True)
        return
    if marked:
        for turn in example:
            yield Piece("", role=turn.role, begins=True)
            yield Piece(f" {turn.content}", turn.learned, ended=True, role=turn.role)
        return
    before = ""
    for turn in example:
        if turn.role != "assistant":
            before += f"{LINES[turn.role]} {turn.content}\n"
            continue
        yield Piece(before + LINES[turn.role])
        yield Piece(f" {turn.content}", turn.learned, ended=True)
        before = "\n"


def ids_of(piece: Piece, vocabulary: Vocabulary) -> list[int]:
    """Encode a piece, with what stands before and after it."""
    marks, ids = vocabulary.marks, vocabulary.encode(piece.text)
    if piece.role and marks is not None:
        return [*[marks.roles[piece.role]] * piece.begins, *ids, *[marks.end] * piece.ended]
    return [*ids, *[vocabulary.end_id] * piece.ended]


def ask(
    messages: Sequence[Mapping[str, str]], vocabulary: Vocabulary, template: str | None = None
) -> list[int]:
    """Encode a conversation up to where the assistant is to answer, as it was taught.

    Args:
        messages: each with its role and content.
        vocabulary: of the model.
        template: one of TEMPLATES, as the model's folder holds it; None: as the vocabulary allows.

    Raises:
        EvaluationError: a message is of another form.
    """
    try:
        turns = read_messages(list(messages), "prompt", empty=True)
    except Unusable as error:
        raise EvaluationError(str(error)) from None
    asked = [*turns, Turn("assistant", "", learned=True)]
    marked = vocabulary.marks is not None and template != IN_WORDS
    *pieces, _ = spell(asked, marked=marked)
    return [id_ for piece in pieces for id_ in ids_of(piece, vocabulary)]


def beginnings(vocabulary: Vocabulary) -> Mapping[int, Sequence[int]]:
    """Say of each mark as which entries it begins: the words that it stands for, or the end."""
    marks = vocabulary.marks
    if marks is None:
        return {}
    end = [vocabulary.end_id]  # also for words that a vocabulary cannot spell
    roles = {id_: vocabulary.encode(LINES[role]) or end for role, id_ in marks.roles.items()}
    return {**roles, marks.end: end}
