"""JSON in one piece: a list of texts or objects, or a chat as a messenger or assistant exports it.

Known by its fields: Telegram's export (one chat, or all of an account), ChatGPT's and Claude's
conversations, {"messages": […]}, and lists of texts or of objects with a text.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.chats import Message, documents
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".json",)
_LOOK_CHARACTERS = 1 << 16
_FIELDS = ("messages", "chat_messages", "mapping", "chats", "text")


def recognizes(source: Source) -> bool:
    """Whether a file of a folder holds text, and not settings: by the fields it begins with."""
    beginning = next(source.read_text(), "")[:_LOOK_CHARACTERS]
    return any(f'"{field}"' in beginning for field in _FIELDS)


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the documents of a file whose shape is known.

    Raises:
        CorpusError: it is not JSON, or of no known shape.
    """
    value = _load(source)
    rows = value if isinstance(value, list) else [value]
    chats = _telegram(value)
    if chats is not None:
        for number, chat in enumerate(chats, 1):
            source.here = f"chat {number}"
            yield from documents(_messages(chat), source)
        return
    for number, row in enumerate(rows, 1):
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
        if settings.field in row and (row[settings.field] is None or _is_text(row, settings)):
            found: str | None = row[settings.field]
            return found
        for read_talk in (_chatgpt, _claude, _talk):
            if (said := read_talk(row)) is not None:
                return "\n\n".join(f"{who}: {text.strip()}" for who, text in said if text.strip())
    fields = ", ".join(list(row)[:12]) if isinstance(row, dict) else type(row).__name__
    near = nearest(settings.field, row) if isinstance(row, dict) else ""
    raise CorpusError(
        f'{source.place}: no text in the field "{settings.field}" (found: {fields}), and no chat '
        f"of Telegram, ChatGPT or Claude; name the field with --corpus.field.{near}"
    )


def _is_text(row: Mapping[str, Any], settings: CorpusSettings) -> bool:
    return isinstance(row[settings.field], str)


def _telegram(value: Any) -> list[dict[str, Any]] | None:
    """Return the chats of an export by Telegram Desktop: of one, or of an account."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("chats"), dict) and isinstance(value["chats"].get("list"), list):
        chats = value["chats"]["list"]
    else:
        chats = [value]
    kept = [chat for chat in chats if isinstance(chat, dict) and _is_telegram(chat)]
    return kept if kept and len(kept) == len(chats) else None


def _is_telegram(chat: Mapping[str, Any]) -> bool:
    messages = chat.get("messages")
    is_list = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
    return is_list and "type" in chat and all("date" in one for one in messages or ())


def _messages(chat: Mapping[str, Any]) -> Iterator[Message]:
    for message in chat["messages"]:
        text = message.get("text", "")
        parts = text if isinstance(text, list) else [text]
        whole = "".join(
            part if isinstance(part, str) else str(part.get("text", "")) for part in parts
        )
        said = message.get("type") == "message"
        name = str(message.get("from") or "?") if said else ""
        yield Message(str(message["date"])[:10], name, whole)


def _chatgpt(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """Return the messages from the first to the one that was shown last."""
    nodes = row.get("mapping")
    if not isinstance(nodes, dict):
        return None
    said: list[tuple[str, str]] = []
    at = row.get("current_node") or next(reversed(nodes), None)
    passed = set()
    while isinstance(at, str) and at in nodes and at not in passed:
        passed.add(at)
        message = nodes[at].get("message") or {}
        parts = (message.get("content") or {}).get("parts") or ()
        text = "\n".join(part for part in parts if isinstance(part, str))
        role = (message.get("author") or {}).get("role", "?")
        if role in ("user", "assistant"):
            said.append((role, text))
        at = nodes[at].get("parent")
    return said[::-1]


def _claude(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    messages = row.get("chat_messages")
    if not isinstance(messages, list):
        return None
    names = {"human": "user"}
    return [
        (names.get(str(one.get("sender")), str(one.get("sender"))), str(one.get("text") or ""))
        for one in messages
        if isinstance(one, dict)
    ]


def _talk(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    messages = row.get("messages")
    if not isinstance(messages, list):
        return None
    kept = [one for one in messages if isinstance(one, dict) and isinstance(one.get("role"), str)]
    if not kept:
        return None
    return [(one["role"], one["content"]) for one in kept if isinstance(one.get("content"), str)]
