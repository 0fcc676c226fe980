"""Read a tokenizer.json, ours or a public one, and what lies beside it; nothing in it is trusted.

What a file describes is looked at first: ids within bounds, a model that can be built. Then, where
it holds more than parts known to be harmless (a pattern of its own may take a time that grows with
the power of a text's length, a replacement may multiply the text), it is tried in a process of its
own, under limits of memory and time, before it is used here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from nextword.base.cache import cached
from nextword.base.errors import VocabularyError
from nextword.base.records import Id, as_record, read_json, read_record
from nextword.vocabulary.kinds import expressions

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"
LARGEST = 1 << 28
"""Bytes of a tokenizer.json; those in use have up to 35 million."""
HOLES = 1 << 16
"""Ids that may be left out beside as many as there are; a network has a row for each of them."""
SECONDS, BYTES = 20, 2 << 30
"""What a trial may take: of a processor, and of memory."""
MOST_IDS_PER_BYTE, MOST_TEXT = 64, 64
"""Times its text's length that a trial's ids, and the text of these, may have."""
HARMLESS = frozenset(
    {
        *("BPE", "Unigram", "WordPiece", "WordLevel"),
        *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Strip"),
        *("ByteLevel", "Whitespace", "WhitespaceSplit", "Metaspace", "BertPreTokenizer"),
        *("Digits", "Punctuation", "UnicodeScripts", "ByteFallback", "Fuse", "Sequence"),
    }
)
"""Parts whose time and output grow with a text as it does."""


class _Added(Struct):
    """An entry beside the model's own."""

    id: Id
    content: str
    special: bool = False


class _Model(Struct):
    vocab: (
        Annotated[dict[str, Id], Meta(min_length=1)]
        | Annotated[list[tuple[str, float]], Meta(min_length=1)]
    )
    type: str = ""
    """Left out in old files, where the other fields show it."""
    unk_token: str | None = None
    unk_id: Id | None = None
    continuing_subword_prefix: str | None = None
    byte_fallback: bool | None = None


class _Described(Struct):
    """What is looked at in a tokenizer.json before the library sees it."""

    model: _Model
    added_tokens: list[_Added] = []


class _Entry(Struct):
    """A reserved entry, written as an object."""

    content: str


class TokenizerConfig(Struct):
    """What is read of tokenizer_config.json."""

    bos_token: str | _Entry | None = None
    eos_token: str | _Entry | None = None
    pad_token: str | _Entry | None = None
    mask_token: str | _Entry | None = None
    add_bos_token: bool | None = None
    chat_template: str | list[Any] | None = None
    nextword_kind: str | None = None
    nextword_ends: Annotated[list[int], Meta(max_length=64)] = []
    """Further entries at which writing stops, where no generation_config.json says it."""

    def name_of(self, role: str) -> str | None:
        """Return the name of the entry with a role, as `eos_token`."""
        entry = getattr(self, role)
        return entry.content if isinstance(entry, _Entry) else entry


def read_tokenizer_config(folder: Path) -> TokenizerConfig:
    """Read what a model folder says of its vocabulary; nothing where it says nothing.

    Raises:
        VocabularyError: the file is damaged.
    """
    file = folder / TOKENIZER_CONFIG
    if not file.exists():
        return TokenizerConfig()
    return read_record(file, TokenizerConfig, VocabularyError)


class _Generation(Struct):
    """What is read of generation_config.json."""

    eos_token_id: int | Annotated[list[int], Meta(max_length=64)] | None = None


def read_ends(folder: Path) -> list[int]:
    """Read at which entries writing stops, as a model folder says; none where it says nothing.

    Raises:
        VocabularyError: the file is damaged.
    """
    file = folder / GENERATION_CONFIG
    if not file.exists():
        return read_tokenizer_config(folder).nextword_ends
    ends = read_record(file, _Generation, VocabularyError).eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def read_tokenizer(file: Path) -> "Tokenizer":
    """Read a tokenizer.json.

    Raises:
        VocabularyError: it is missing or damaged, or cannot be used without harm.
    """
    if not file.is_file():
        raise VocabularyError(f"{file}: no such file; a model folder holds its vocabulary there")
    described = read_json(file, VocabularyError, largest=LARGEST)
    _check(as_record(described, _Described, file, VocabularyError), file)
    described |= {"padding": None, "truncation": None}  # a text is read as it is, and whole
    text = json.dumps(described, ensure_ascii=False)
    if not _is_harmless(described):
        made_of = [b"trial of a tokenizer 1", text.encode("utf-8", "replace")]
        if found := cached(made_of, lambda: _trial(text)):
            raise VocabularyError(f"{file}: damaged vocabulary ({found})")
    return build(text, file)


def build(text: str, file: Path | str) -> "Tokenizer":
    """Build what a tokenizer.json describes.

    Raises:
        VocabularyError: the library cannot.
    """
    from tokenizers import Tokenizer

    with no_panic(f"{file}: damaged vocabulary"):
        return Tokenizer.from_str(text)


@contextmanager
def no_panic(where: str) -> Iterator[None]:
    """Turn what the library raises into one line; its panics too, which are no `Exception`.

    Args:
        where: what was being done.

    Raises:
        VocabularyError: it failed.
    """
    try:
        yield
    except (MemoryError, VocabularyError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise VocabularyError(f"{where} ({' '.join(str(error).split())[:160]})") from None


def _check(described: _Described, file: Path) -> None:
    model, entries = described.model, described.model.vocab
    ids = list(entries.values()) if isinstance(entries, dict) else range(len(entries))
    highest = max([*ids, *(added.id for added in described.added_tokens)])
    if highest > 2 * (len(ids) + len(described.added_tokens)) + HOLES:
        raise VocabularyError(
            f"{file}: damaged: an entry has the id {highest:,}, and there are {len(ids):,} entries"
        )
    if model.type == "WordLevel" and (model.unk_token is None or model.unk_token not in entries):
        raise VocabularyError(
            f"{file}: a vocabulary of words without an entry for words that it does not know; its "
            "unk_token must name one"
        )


def _is_harmless(part: Any) -> bool:
    """Whether all parts of a description are known to take no more time and room than the text."""
    if not isinstance(part, dict):
        return True
    kind = part.get("type")
    if kind in ("Split", "Replace"):
        pattern, put = part.get("pattern"), part.get("content") or ""
        known = pattern.get("Regex") if isinstance(pattern, dict) else None
        return isinstance(known, str) and known in expressions() and put == ""
    if kind is not None and not (isinstance(kind, str) and kind in HARMLESS):
        return False
    inside = [part.get(name) for name in ("normalizer", "pre_tokenizer", "decoder", "model")]
    for name in ("normalizers", "pretokenizers", "decoders"):
        more = part.get(name)
        inside += more if isinstance(more, list) else []
    return all(map(_is_harmless, inside))


def _trial(text: str) -> str:
    """Let a process of its own use a described tokenizer; return what went wrong, or nothing.

    Raises:
        VocabularyError: it could not be tried; that is no finding to be remembered.
    """
    command = [sys.executable, "-m", "nextword.vocabulary.reading", str(SECONDS)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            input=text.encode("utf-8"),
            env=environment,
            timeout=PATIENCE * SECONDS,
            capture_output=True,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise VocabularyError(f"{TOKENIZER}: could not be tried ({error})"[:200]) from None
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"to encode a plain text took it more than {SECONDS} seconds, or ended the process"
    if done.returncode != REFUSED:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise VocabularyError(f"{TOKENIZER}: could not be tried ({''.join(last)[:120]})")
    return done.stdout.decode("utf-8", "replace").strip()[-200:]


REFUSED = 3
"""Status of a trial with a finding."""
PATIENCE = 10
"""Times the seconds of a processor: a machine may have others to serve."""


def _try_out(seconds: int) -> None:
    """Be that process: build what standard input describes, and encode texts of many kinds."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    except (ImportError, ValueError):  # no such limits on Windows: the time alone is limited there
        pass
    try:
        tokenizer = build(sys.stdin.buffer.read().decode("utf-8"), TOKENIZER)
        for text in _TEXTS:
            with no_panic(f"it cannot encode {text[:12]!r}…"):
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                back = tokenizer.decode(ids)
            size = len(text.encode())
            if len(ids) > MOST_IDS_PER_BYTE * size or len(back) > MOST_TEXT * size:
                raise VocabularyError(f"it makes {len(ids):,} ids of {size:,} bytes")
    except (VocabularyError, MemoryError) as error:
        sys.stdout.write(str(error) or "it takes more than two gigabytes for a plain text")
        sys.exit(REFUSED)


_WORDS = "We are all humans, born to make mistakes. 3.14 != «Ünïcode» 日本語\tif x:\n  y = 1\r\n\n"
_TEXTS = (
    _WORDS,
    *(20 * _WORDS, _WORDS.replace(" ", "")),
    *(letter * 4000 for letter in "a -\n0.é日\0"),
    *("ab" * 2000, "a b" * 1500, "a" * 3000 + "!"),
)

if __name__ == "__main__":
    _try_out(int(sys.argv[1]))
