r"""Pre-tokenization patterns (GPT-2, Llama 3, Qwen 2): no token reaches across their cuts.

`gpt2` is what Radford et al. (2019) published, `qwen2` (Yang et al. 2024) and `llama3` (Dubey et
al. 2024) are today's, alike but for digits: one by one, or in groups of up to three from the left.
Both write a contraction in either case, let a word begin with the sign or blank before it, and keep
line breaks together: "\n\n" is one piece, and so is a sign with the line break after it. In GPT-2's
every line break of several stands alone and digits run together.

The names are those that llama.cpp knows them by.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _today(digits: str) -> str:
    return "|".join((_CONTRACTIONS, _WORD, digits, _SIGNS, _SPACE))


PATTERNS: dict[str, str] = {
    "gpt2": "",  # built into the library's byte-level step
    "llama3": _today(r"\p{N}{1,3}"),
    "qwen2": _today(r"\p{N}"),
}


def before_subwords(pattern: str) -> "PreTokenizer":
    """Divide a text by a pattern and write its bytes as letters.

    Args:
        pattern: a name of PATTERNS.
    """
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    if not (split := PATTERNS[pattern]):
        return ByteLevel(add_prefix_space=False)
    letters = ByteLevel(add_prefix_space=False, use_regex=False)
    return Sequence([Split(Regex(split), "isolated"), letters])


def pattern_of(description: dict[str, Any]) -> str | None:
    """Name the pattern of a described byte-level pre-tokenizer, or None of any other.

    Args:
        description: `pre_tokenizer` of a tokenizer.json.
    """
    steps = description.get("pretokenizers", [description])
    *splits, last = steps or [{}]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if not splits:
        return "gpt2" if last.get("use_regex", True) else None
    if len(splits) > 1 or last.get("use_regex", True) or splits[0].get("type") != "Split":
        return None
    split = splits[0]
    if split.get("behavior") != "Isolated" or split.get("invert"):
        return None
    known = {pattern: name for name, pattern in PATTERNS.items() if pattern}
    return known.get(split["pattern"].get("Regex", ""))
