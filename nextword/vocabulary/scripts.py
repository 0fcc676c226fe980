"""Bytes per token by script: Latin, Cyrillic, Chinese, ….

A vocabulary learned from one script cuts the others into bytes; this shows it.
"""

import unicodedata
from collections import Counter
from functools import lru_cache

from nextword.vocabulary.tokenizer import Vocabulary, plain

OTHER = "symbols"
_SCRIPTS = {
    "cjk": "chinese",
    "hiragana": "japanese",
    "katakana": "japanese",
    "fullwidth": "latin",
    "feminine": "latin",
    "masculine": "latin",
    "micro": "greek",
    "combining": OTHER,
    "variation": OTHER,
}
"""Names of characters that do not begin with their script's."""
MIN_SHARE = 0.01


@lru_cache(maxsize=4096)
def script_of(letter: str) -> str:
    """Return a letter's script, in lower case: the first word of its name in Unicode.

    Digits, punctuation, emoji and spaces belong to none and are `symbols`.
    """
    if unicodedata.category(letter)[0] not in "LM":
        return OTHER
    word = unicodedata.name(letter, OTHER).split(" ")[0].split("-")[0].lower()
    return _SCRIPTS.get(word, word)


def bytes_per_token_by_script(vocabulary: Vocabulary, text: str) -> dict[str, float]:
    """Measure bytes a token, for each script that makes up 1 % of a text or more.

    A token counts for the script of its first letter, or as symbols when it has none.

    Args:
        vocabulary: what divides the text.
        text: the sample.

    Returns:
        script → bytes a token, the commonest script first.
    """
    text = plain(text)  # half a character of a JSON text has no bytes
    tokens: Counter[str] = Counter()
    spelled: Counter[str] = Counter()
    end = 0
    for start, stop in vocabulary.tokenizer.encode(text, add_special_tokens=False).offsets:
        letters = (script_of(letter) for letter in text[start:stop])
        script = next((script for script in letters if script != OTHER), OTHER)
        tokens[script] += 1
        # Tokens that share a character all stand at its place; its bytes count once.
        spelled[script] += len(text[max(start, end) : stop].encode("utf-8", "replace"))
        end = max(end, stop)
    least = MIN_SHARE * sum(spelled.values())
    return {
        script: size / tokens[script] for script, size in spelled.most_common() if size >= least
    }
