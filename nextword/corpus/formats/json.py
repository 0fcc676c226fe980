"""JSON in one piece: a list of texts or objects, or a chat as a messenger or assistant exports it.

Known by its fields: Telegram's export (one chat, or all of an account), ChatGPT's and Claude's
conversations, {"messages": […]}, and lists of texts or of objects with a text.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.chats import Message, documents
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".json",)


def recognizes(source: Source) -> bool:
    """Whether a file of a folder holds text, and not settings: by its fields."""
    try:
        value = _load(source)
    except CorpusError:
        return False
    if isinstance(value, dict) and {"chats", "messages", "mapping", "chat_messages"} & value.keys():
        try:
            return _telegram(value, source) is not None or _is_talk(value, source)
        except CorpusError:
            return False
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict):
        return isinstance(first.get("text"), str) or _is_talk(first, source)
    return isinstance(first, str) and " " in first  # and no list of words


def _is_talk(row: dict[str, Any], source: Source) -> bool:
    try:
        return any(field in row and _as(row, shape[0], source) for field, shape in _TALKS.items())
    except CorpusError:
        return False


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the documents of a file whose shape is known.

    Raises:
        CorpusError: it is not JSON, or of no known shape.
    """
    value = _load(source)
    if isinstance(value, dict) and (chats := _telegram(value, source)) is not None:
        for number, chat in enumerate(chats, 1):
            source.here = f"chat {number}"
            yield from documents(_messages(chat), source)
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        source.here = f"entry {number}"
        text = row if isinstance(row, str) else _text(row, source, settings)
        if text is None:
            source.tally.records += 1
            source.tally.add("null", source.place)
            continue
        yield Piece(text, True)


def _load(source: Source) -> Any:
    try:
        return json.loads("".join(source.read_text()))
    except json.JSONDecodeError as error:
        hint = "; of many objects, a line each, the name ends in .jsonl" * ("Extra" in error.msg)
        raise CorpusError(
            f"{source.name}, line {error.lineno}: not JSON ({error.msg}){hint}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{source.name}: cannot be read as JSON ({str(error)[:80]})") from None


def _text(row: Any, source: Source, settings: CorpusSettings) -> str | None:
    if isinstance(row, dict):
        if settings.field in row and isinstance(row[settings.field], str | None):
            found: str | None = row[settings.field]
            return found
        for field, (shape, said_in) in _TALKS.items():
            if field in row:
                said = said_in(_as(row, shape, source))
                return "\n\n".join(f"{who}: {text.strip()}" for who, text in said if text.strip())
    fields = ", ".join(list(row)[:12]) if isinstance(row, dict) else type(row).__name__
    near = nearest(settings.field, row) if isinstance(row, dict) else ""
    raise CorpusError(
        f'{source.place}: no text in the field "{settings.field}" (found: {fields}), and no chat '
        f"of Telegram, ChatGPT or Claude; name the field with --corpus.field.{near}"
    )


T = TypeVar("T")


def _as(value: Any, shape: type[T], source: Source) -> T:
    """Read a value as what it must hold.

    Raises:
        CorpusError: it does not, and where.
    """
    try:
        return msgspec.convert(value, shape)
    except (msgspec.ValidationError, UnicodeError) as error:  # half a character, say
        raise CorpusError(f"{source.place}: {str(error)[:200]}") from None


class _Entity(Struct):
    """A part of a message with a look of its own, as a link."""

    text: str = ""


class _Message(Struct):
    """What Telegram Desktop says of a message."""

    date: str
    type: str = ""
    from_: str | None = msgspec.field(default=None, name="from")
    text: str | list[str | _Entity] = ""


class _Chat(Struct):
    """A chat, as Telegram Desktop exports one."""

    type: str
    messages: list[_Message]


class _Chats(Struct):
    """All chats of an account."""

    list: list[_Chat]


def _telegram(value: dict[str, Any], source: Source) -> list[_Chat] | None:
    """Return the chats of an export by Telegram Desktop: of one, or of an account."""
    if isinstance(value.get("chats"), dict):
        return _as(value["chats"], _Chats, source).list
    if "messages" in value and "type" in value:
        return [_as(value, _Chat, source)]
    return None


def _messages(chat: _Chat) -> Iterator[Message]:
    for message in chat.messages:
        parts = [message.text] if isinstance(message.text, str) else message.text
        whole = "".join(part if isinstance(part, str) else part.text for part in parts)
        name = (message.from_ or "?") if message.type == "message" else ""
        yield Message(message.date[:10], name, whole)


class _Author(Struct):
    role: str = "?"


class _Content(Struct):
    parts: list[Any] = []


class _Said(Struct):
    author: _Author = msgspec.field(default_factory=_Author)
    content: _Content | None = None


class _Node(Struct):
    parent: str | None = None
    message: _Said | None = None


class _ChatGPT(Struct):
    """A conversation as ChatGPT exports it: a tree, for questions are asked anew."""

    mapping: dict[str, _Node]
    current_node: str | None = None


def _of_chatgpt(talk: _ChatGPT) -> Iterable[tuple[str, str]]:
    """Return the messages from the first to the one that was shown last."""
    said: list[tuple[str, str]] = []
    at, passed = talk.current_node or next(reversed(talk.mapping), None), set[str]()
    while at is not None and at in talk.mapping and at not in passed:
        passed.add(at)
        node = talk.mapping[at]
        if node.message is not None and node.message.author.role in ("user", "assistant"):
            parts = node.message.content.parts if node.message.content else []
            text = "\n".join(part for part in parts if isinstance(part, str))
            said.append((node.message.author.role, text))
        at = node.parent
    return said[::-1]


class _ClaudeMessage(Struct):
    sender: str
    text: str | None = None


class _Claude(Struct):
    """A conversation as Claude exports it."""

    chat_messages: list[_ClaudeMessage]


def _of_claude(talk: _Claude) -> Iterable[tuple[str, str]]:
    names = {"human": "user"}
    return [(names.get(one.sender, one.sender), one.text or "") for one in talk.chat_messages]


class _Turn(Struct):
    role: str
    content: Any = None


class _Talk(Struct):
    """A conversation as programs hold it."""

    messages: list[_Turn]


def _of_talk(talk: _Talk) -> Iterable[tuple[str, str]]:
    return [(one.role, one.content) for one in talk.messages if isinstance(one.content, str)]


_TALKS: dict[str, tuple[type[Any], Callable[[Any], Iterable[tuple[str, str]]]]] = {
    "mapping": (_ChatGPT, _of_chatgpt),
    "chat_messages": (_Claude, _of_claude),
    "messages": (_Talk, _of_talk),
}
"""By the field that tells a conversation: what it must hold, and who said what."""
