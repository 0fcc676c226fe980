"""Dataset schemas of prompts and answers (Alpaca, ShareGPT, OpenAI, …), known by field names.

To add one, add a line to `SHAPES`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nextword.corpus.examples import Row
from nextword.finetune.kinds import read_list
from nextword.finetune.tally import Unusable
from nextword.objectives.options import FinetuneSettings

TWO_ANSWERS = {"chosen", "rejected"}
"""Fields of a row with two answers, of which a person preferred the first."""
ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "human": "user",
    "gpt": "assistant",
}
"""Who speaks, as `messages` and as `conversations` name them."""
MESSAGE_FIELDS = (("role", "content"), ("from", "value"))


class Turn(NamedTuple):
    """What one of the two sides said."""

    role: str
    content: str
    learned: bool
    """Whether it is an answer to learn; all else is context."""


class Pair(NamedTuple):
    """A prompt and its answer as plain text."""

    prompt: str
    answer: str


Example = Pair | list[Turn]


class Shape(NamedTuple):
    """How an example stands in a row."""

    fields: tuple[str, ...]
    """A row with all of them is of this shape."""
    read: Callable[[Mapping[str, Any], Sequence[str]], Example]


def shapes(settings: FinetuneSettings) -> tuple[Shape, ...]:
    """List the shapes, the first that fits is taken; two fields are named by settings."""
    own = Shape((settings.prompt, settings.answer), _pair)
    return (*SHAPES[:2], own, *SHAPES[2:])


def shape_of(row: Row, settings: FinetuneSettings) -> Shape | None:
    """Say of which shape a row is; None of none."""
    fitting = (one for one in shapes(settings) if all(name in row.values for name in one.fields))
    return next(fitting, None)


def read_example(row: Row, settings: FinetuneSettings) -> Example:
    """Read a row.

    Raises:
        Unusable: it is of no known shape, or holds nothing to learn.
    """
    shape = shape_of(row, settings)
    if shape is None:
        raise Unusable("unknown_shape", unknown(row, settings))
    return shape.read(row.values, shape.fields)


def unknown(row: Row, settings: FinetuneSettings) -> str:
    """Say which fields a row has, what the nearest shape lacks, and which shapes are known."""
    known = [shape.fields for shape in shapes(settings)]
    nearest = max(known, key=lambda fields: sum(name in row.values for name in fields))
    lacking = [name for name in nearest if name not in row.values]
    near = ""
    if len(lacking) < len(nearest):
        near = f'no field "{lacking[0]}", '
    listed = ", ".join(" + ".join(fields) for fields in dict.fromkeys(known))
    return (
        f"{near}only {', '.join(row.values) or 'none'}; prompts with answers are known as "
        f"{listed}, with two answers as {settings.prompt} + chosen + rejected, and texts with "
        f"labels as {settings.text} + {settings.label} "
        "(--finetune.prompt, .answer, .text and .label name other fields)"
    )


def _pair(values: Mapping[str, Any], fields: Sequence[str]) -> Example:
    """Read a prompt and an answer: two texts, or two lists of messages."""
    prompt, answer = (values[name] for name in fields)
    if isinstance(prompt, list) and isinstance(answer, list):
        before = [turn._replace(learned=False) for turn in read_messages(prompt, fields[0])]
        return _checked([*before, *read_messages(answer, fields[1])])
    return Pair(_prompt(prompt, fields[0]), _answer(answer, fields[1]))


def _instruction(values: Mapping[str, Any], fields: Sequence[str]) -> Example:
    """Read an instruction, with what it is about on a line of its own where there is something."""
    said = [values[fields[0]], values.get("input")]
    parts = [part for part in said if part is not None and part != ""]
    if wrong := [part for part in parts if not isinstance(part, str)]:
        raise Unusable("damaged", f"an instruction or input that is no text: {str(wrong[0])[:40]}")
    return Pair(_prompt("\n".join(parts), fields[0]), _answer(values[fields[1]], fields[1]))


def _messages(values: Mapping[str, Any], fields: Sequence[str]) -> Example:
    """Read a conversation; what stands beside it in a field `system` goes before it."""
    turns = read_messages(values[fields[0]], fields[0])
    system = values.get("system")
    if isinstance(system, str) and system.strip() and turns[0].role != "system":
        turns.insert(0, Turn("system", system, learned=False))
    return _checked(turns)


def read_messages(messages: Any, field: str, *, empty: bool = False) -> list[Turn]:
    """Read a list of messages.

    Args:
        messages: the list.
        field: where it stood.
        empty: take empty answers, from which nothing is learned, but which a model may have given.

    Raises:
        Unusable: it is none, an answer in it is empty, or one lacks its role or content.
    """
    messages = read_list(messages)  # in a table they stand as text
    if not isinstance(messages, list) or not messages:
        raise Unusable("damaged", f'"{field}" is no list of messages')
    return [_turn(message, empty=empty) for message in messages]


def _turn(message: Any, *, empty: bool) -> Turn:
    known = message if isinstance(message, dict) else {}
    keys = next((keys for keys in MESSAGE_FIELDS if keys[0] in known), MESSAGE_FIELDS[0])
    said, content = (known.get(key) for key in keys)
    role = ROLES.get(said) if isinstance(said, str) else None
    nothing = content is None or content == "" or str(content).isspace()
    if role == "assistant" and nothing and not empty:
        raise Unusable("empty_answer", "an answer is empty")
    if role is None or not isinstance(content, str):
        raise Unusable(
            "damaged",
            f"a message needs a role, one of {', '.join(ROLES)}, and its content as text "
            f"({' and '.join('/'.join(keys) for keys in zip(*MESSAGE_FIELDS, strict=True))})",
        )
    return Turn(role, content, learned=role == "assistant")


def _checked(turns: list[Turn]) -> list[Turn]:
    """Refuse a conversation that has nothing to learn, or no answer at its end."""
    if {turn.role for turn in turns} == {"system"}:
        raise Unusable("only_system", "a system message alone, so nothing to learn")
    if not any(turn.learned for turn in turns):
        raise Unusable("no_answer", "no message of the assistant, so nothing to learn")
    if not turns[-1].learned:
        raise Unusable("ends_unanswered", f"it ends with a message of the {turns[-1].role}")
    return turns


def _prompt(prompt: Any, field: str) -> str:
    return text_of(prompt, field, "empty_prompt")


def _answer(answer: Any, field: str) -> str:
    return text_of(answer, field, "empty_answer")


def text_of(value: Any, field: str, why: str) -> str:
    """Return a field's text.

    Raises:
        Unusable: for the reason `why`, it holds none.
    """
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        raise Unusable(why, f'the field "{field}" is empty')
    if not isinstance(value, str):
        raise Unusable("damaged", f'the field "{field}" holds {str(value)[:40]}, which is no text')
    return value


SHAPES = (
    Shape(("messages",), _messages),
    Shape(("conversations",), _messages),
    Shape(("instruction", "output"), _instruction),
    Shape(("prompt", "completion"), _pair),
    Shape(("question", "answer"), _pair),
)
