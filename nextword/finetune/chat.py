"""Chat template: how a conversation is written down as one text.

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

TEMPLATE = (
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


Prompt = str | Sequence[Mapping[str, str]]
"""What a model is asked: a text, or a chat's messages."""


class Piece(NamedTuple):
    """A piece of an example's text, encoded by itself."""

    text: str
    learned: bool = False
    """Whether the loss counts it, and the end-of-text after it."""
    ended: bool = False
    """Whether end-of-text stands after it."""


def spell(example: Example) -> Iterator[Piece]:
    """Write an example down.

    Where neither a prompt ends nor its answer begins with white space, a space parts them. What
    stands between two answers is one piece, so that it is encoded as whoever asks writes it.
    """
    if isinstance(example, Pair):
        prompt, answer = example
        parted = prompt[-1].isspace() or answer[0].isspace()
        yield Piece(prompt)
        yield Piece(answer if parted else f" {answer}", learned=True, ended=True)
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
    """Encode a piece, with the end-of-text after it."""
    return [*vocabulary.encode(piece.text), *[vocabulary.end_id] * piece.ended]


def ask(messages: Sequence[Mapping[str, str]], vocabulary: Vocabulary) -> list[int]:
    """Encode a conversation up to where the assistant is to answer, as it was taught.

    Raises:
        EvaluationError: a message is of another form.
    """
    try:
        turns = read_messages(list(messages), "prompt")
    except Unusable as error:
        raise EvaluationError(str(error)) from None
    *pieces, _ = spell([*turns, Turn("assistant", "", learned=True)])
    return [id_ for piece in pieces for id_ in ids_of(piece, vocabulary)]
