"""Role marks: entries that say whose turn of a conversation begins, and that a turn is over.

Each is one token that no text spells in this program and its server, so that nobody's words are
taken for another's turn there; other programs may read the names in what users type. A model gets
them when it is first taught conversations.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

ROLES = {
    "system": "<|system|>",
    "user": "<|user|>",
    "tool": "<|tool|>",
    "assistant": "<|assistant|>",
}
TURN_END = "<|end|>"
NAMES = (*ROLES.values(), TURN_END)


class Marks(NamedTuple):
    """The ids of a vocabulary's marks."""

    roles: Mapping[str, int]
    """By the role whose turn begins."""
    end: int
    """Ends a turn, of whomever."""


def marks_of(described: Mapping[str, Any]) -> Marks | None:
    """Return the marks of a vocabulary; None where it has not all of them.

    Args:
        described: what its tokenizer.json says.
    """
    special = {
        entry["content"]: entry["id"]
        for entry in described.get("added_tokens", [])
        if entry.get("special")
    }
    if not all(name in special for name in NAMES):
        return None
    return Marks({role: special[name] for role, name in ROLES.items()}, special[TURN_END])
