"""Tokens as an answer spells them: text, bytes, places in the text, log-probabilities."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from nextword.serve.growing import Judged
from nextword.vocabulary.tokenizer import Vocabulary


def token_text(vocabulary: Vocabulary, id_: int) -> str:
    r"""Spell a token: its text, its name where it is special, "bytes:\xe2" where it is no text."""
    raw = vocabulary.piece_bytes(id_)
    if not raw:
        return vocabulary.piece(id_)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Places:
    """Where the tokens of a text begin, in characters; told some at a time or all at once."""

    def __init__(self, vocabulary: Vocabulary, start: int = 0) -> None:
        """Begin before the first token.

        Args:
            vocabulary: of the model.
            start: place of the text's first character.
        """
        self._vocabulary, self._place = vocabulary, start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def of(self, ids: Iterable[int]) -> list[int]:
        """Return where the tokens that come next begin.

        A token that ends a character begins where this character does.
        """
        found = []
        for id_ in ids:
            found.append(self._place)
            self._place += len(self._decoder.decode(self._vocabulary.piece_bytes(id_)))
        return found


def completion_logprobs(
    vocabulary: Vocabulary, judged: Sequence[Judged], places: Sequence[int]
) -> dict[str, Any]:
    """Write log-probabilities down as /v1/completions does.

    Args:
        vocabulary: of the model.
        judged: token by token.
        places: where each begins in the text, in characters.
    """
    return {
        "tokens": [token_text(vocabulary, one.id) for one in judged],
        "token_logprobs": [one.log_probability for one in judged],
        "top_logprobs": [_top(vocabulary, one) for one in judged],
        "text_offset": list(places),
    }


def _top(vocabulary: Vocabulary, judged: Judged) -> dict[str, float] | None:
    """Return the likeliest tokens and the one that stands there, by their text."""
    if judged.log_probability is None:
        return None
    found: dict[str, float] = {}
    for id_, value in judged.top:
        found.setdefault(token_text(vocabulary, id_), value)
    found[token_text(vocabulary, judged.id)] = judged.log_probability
    return found


def chat_logprobs(vocabulary: Vocabulary, judged: Sequence[Judged]) -> dict[str, Any]:
    """Write log-probabilities down as /v1/chat/completions does."""
    return {
        "content": [
            {
                **_spelled(vocabulary, one.id, one.log_probability),
                "top_logprobs": [_spelled(vocabulary, *candidate) for candidate in one.top],
            }
            for one in judged
        ],
        "refusal": None,
    }


def _spelled(vocabulary: Vocabulary, id_: int, value: float | None) -> dict[str, Any]:
    return {
        "token": token_text(vocabulary, id_),
        "logprob": value,
        "bytes": list(vocabulary.piece_bytes(id_)) or None,
    }
