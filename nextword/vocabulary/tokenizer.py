"""The tokenizer: text → tokens → ids, and back, through Hugging Face's `tokenizers`.

`tokenizer.json` is the format.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextword.base.errors import VocabularyError
from nextword.vocabulary.alphabet import Speller
from nextword.vocabulary.kinds import RESERVED, find_kind, names
from nextword.vocabulary.marks import NAMES, Marks, marks_of
from nextword.vocabulary.reading import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    no_panic,
    read_ends,
    read_tokenizer,
    read_tokenizer_config,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Vocabulary:
    """All that the model knows: a fixed list of pieces, each with an id."""

    def __init__(
        self,
        tokenizer: "Tokenizer",
        kind: str,
        reserved: Sequence[str | None] = RESERVED,
        begin: str | None = None,
        ends: Sequence[int] = (),
    ) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: of the `tokenizers` library.
            kind: one of those built here, or the library's word for what came from elsewhere.
            reserved: names of the end-of-text, pad and mask entries; None where there is none.
            begin: name of the entry that a text begins with; default: that which ends a text.
            ends: special entries at which writing stops, beside end-of-text; others are left out,
                for an ordinary piece is text.
        """
        tokenizer.encode_special_tokens = True  # a reserved name in a user's text is ordinary text
        tokenizer.post_processor = None  # what stands around a text is written where it is saved
        self.tokenizer = tokenizer
        self.kind = kind
        roles = [*reserved, None, None][:3]
        if roles[1] == roles[0]:
            roles[1] = None  # what ends a text is no padding: it is read and asked for
        self._roles = tuple(roles)
        self.reserved = tuple(name for name in roles if name is not None)
        found = [None if name is None else tokenizer.token_to_id(name) for name in roles]
        if found[0] is None:
            raise VocabularyError(
                f"the vocabulary has no entry {roles[0]!r} to mark the end of a text"
            )
        self.end_id: int = found[0]
        self._begin = begin
        begin_id = None if begin is None else tokenizer.token_to_id(begin)
        self.begin_id: int = self.end_id if begin_id is None else begin_id
        """Stands before a text that is asked about: in a vocabulary made here, its end-of-text."""
        self.pad_id: int | None = found[1]
        self.mask_id: int | None = found[2]
        self._description: dict[str, Any] = json.loads(tokenizer.to_str())
        self._speller = Speller(self._description)
        self.unknown_id: int | None = self._unknown()
        self._size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        self.marks: Marks | None = marks_of(self._description)
        """Of the turns of a conversation, where it has entries for them."""
        special = {
            one["id"] for one in self._description.get("added_tokens", []) if one.get("special")
        }
        more = {*(set(ends) & special), *([] if self.marks is None else [self.marks.end])}
        self.other_ends = tuple(sorted(more - {self.end_id}))
        """Entries at which writing stops too, as at a turn's end."""

    def with_marks(self) -> "Vocabulary":
        """Return a vocabulary with an entry more for each role of a conversation and a turn's end.

        The same one where it has them, or where it leaves ids out: the library counts from the
        number of entries on, and would give ids that are taken.
        """
        if self.marks is not None:
            return self
        from tokenizers import AddedToken, Tokenizer

        other: Tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        other.add_special_tokens(
            [AddedToken(name, normalized=False, special=True) for name in NAMES]
        )
        names = [name for name in NAMES if self.tokenizer.token_to_id(name) is None]
        free = [*range(self._size, self._size + len(names))]
        if [other.token_to_id(name) for name in names] != free:
            return self
        return Vocabulary(other, self.kind, self._roles, self._begin, self.other_ends)

    def ends_writing(self, id_: int) -> bool:
        """Whether an id ends what a model writes: end-of-text, or a turn's end."""
        return id_ == self.end_id or id_ in self.other_ends

    def __len__(self) -> int:
        """Count the ids, reserved ones included; a vocabulary from elsewhere may leave some out."""
        return self._size

    @property
    def mask(self) -> int:
        """The entry that stands for a hidden token.

        Raises:
            VocabularyError: there is none.
        """
        if self.mask_id is None:
            raise VocabularyError(
                "the vocabulary has no entry that stands for a hidden token; tokenizer_config.json "
                "would name it as mask_token"
            )
        return self.mask_id

    @property
    def mask_name(self) -> str | None:
        """How the entry for a hidden token is called."""
        return None if self.mask_id is None else str(self.tokenizer.id_to_token(self.mask_id))

    @cached_property
    def has_spaced_pieces(self) -> bool:
        """Whether a word and the space before it are one piece."""
        pieces = (self.piece_bytes(id_) for id_ in range(len(self)))
        return any(len(piece) > 1 and piece.startswith(b" ") for piece in pieces)

    @property
    def is_built_here(self) -> bool:
        """Whether it is of a kind that is built here, with the reserved entries of those."""
        return self.reserved == RESERVED and self.kind in names()

    @property
    def is_lossless(self) -> bool:
        """Whether decode(encode(text)) is the text for every text, known from how it was built."""
        return self.is_built_here and find_kind(self.kind).LOSSLESS

    @property
    def description(self) -> dict[str, Any]:
        """What its tokenizer.json says."""
        return self._description

    @property
    def spells_exactly(self) -> bool:
        """Whether the bytes of a text's ids are the text's bytes, seen from how it is described."""
        before = json.dumps(self._description.get("pre_tokenizer"))
        return (
            self._speller.is_byte_level
            and not self._description.get("normalizer")
            and '"add_prefix_space": true' not in before
        )

    def gives_back(self, text: str) -> bool:
        """Whether this text comes back exactly."""
        return self.decode(self.encode(text)) == plain(text)

    def _unknown(self) -> int | None:
        model = self._description["model"]
        if model["type"] == "Unigram":
            unknown: int | None = model.get("unk_id")
            return unknown
        name = model.get("unk_token")
        return None if name is None else self.tokenizer.token_to_id(name)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Turn a text into ids.

        Args:
            text: of any length.
            special: let names of special tokens in the text stand for their entries; by default
                they are ordinary text, for nobody's text is to end where it only speaks of an end.
        """
        tokenizer = self._reading_names if special else self.tokenizer
        with no_panic("the vocabulary cannot encode this text"):
            return list(tokenizer.encode(plain(text), add_special_tokens=False).ids)

    @cached_property
    def _reading_names(self) -> "Tokenizer":
        """The same tokenizer, for which a special token's name in a text is that token."""
        from tokenizers import Tokenizer

        other: Tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        other.encode_special_tokens = False
        return other

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, on all cores."""
        with no_panic("the vocabulary cannot encode one of these texts"):
            encodings = self.tokenizer.encode_batch_fast(
                [plain(text) for text in texts], add_special_tokens=False
            )
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Turn ids into text.

        Args:
            ids: any number.
            special: write the names of special tokens; by default they are left out.

        Raises:
            VocabularyError: an id is outside the vocabulary, or is none.
        """
        self._check(ids)
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=not special)
        return text

    def _check(self, ids: Sequence[int]) -> None:
        """Refuse what is no id of this vocabulary; the library gives "" or an overflow for it."""
        for id_ in ids:
            try:
                there = 0 <= index(id_) < self._size
            except TypeError:
                raise VocabularyError(
                    f"{id_!r} is no id: expected whole numbers, 0 to {len(self) - 1}"
                ) from None
            if not there:
                raise VocabularyError(
                    f"no entry {id_}: this vocabulary holds ids 0 to {len(self) - 1}"
                )

    def piece(self, id_: int) -> str:
        """Return what an id stands for, as it stands in a text: a leading space included.

        A vocabulary from elsewhere may have left ids out, and a network still gives them logits.

        Raises:
            VocabularyError: the id is outside the vocabulary.
        """
        self._check((id_,))
        entry = self.tokenizer.id_to_token(id_)
        if entry is None:
            return f"(no entry {id_})"
        if not self._is_ordinary(id_, entry):
            return str(entry)
        return self._speller.spell(entry).decode("utf-8", "replace")

    def piece_bytes(self, id_: int) -> bytes:
        """Return the bytes an id spells; none for reserved entries.

        Raises:
            VocabularyError: the id is outside the vocabulary.
        """
        self._check((id_,))
        entry = self.tokenizer.id_to_token(id_)
        return self._speller.spell(str(entry)) if self._is_ordinary(id_, entry) else b""

    def count_bytes(self, ids: NDArray[np.integer[Any]]) -> int:
        """Count the bytes that ids spell.

        Raises:
            VocabularyError: an id is outside the vocabulary.
        """
        if ids.size:
            self._check((int(ids.min()), int(ids.max())))
        return int(self._byte_lengths[ids].sum())

    @cached_property
    def _byte_lengths(self) -> NDArray[np.int64]:
        return np.array([len(self.piece_bytes(id_)) for id_ in range(len(self))], dtype=np.int64)

    def _is_ordinary(self, id_: int, entry: str | None) -> bool:
        return entry is not None and entry not in self._specials and id_ != self.unknown_id

    @cached_property
    def _specials(self) -> frozenset[str | None]:
        """Names that stand for themselves: the reserved ones, and those of `train_bpe`."""
        names = self._description.get("added_tokens", []) if self.kind == "bpe" else []
        added = (entry["content"] for entry in names if entry.get("special"))
        marks = NAMES if self.marks is not None else ()
        return frozenset((*self.reserved, self._begin, *added, *marks))

    def save(
        self,
        folder: Path,
        *,
        template: str = "",
        context: int | None = None,
        names_are_read: bool = False,
    ) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `transformers` reads them.

        Args:
            folder: exists already.
            template: "both" or "begin": other programs shall put end-of-text around each text, or
                before it.
            context: tokens that the model of this folder reads at once.
            names_are_read: a reserved name in a text, as the mask's, stands for its entry there.
        """
        (folder / TOKENIZER).write_text(
            self._described_with(template, names_are_read),
            encoding="utf-8",
        )
        end = self.reserved[0]
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": not names_are_read,
            "model_max_length": int(1e30) if context is None else context,
            "bos_token": end,
            "eos_token": end,
            "pad_token": self.tokenizer.id_to_token(
                self.end_id if self.pad_id is None else self.pad_id
            ),
            "nextword_kind": self.kind,
        }
        if self.other_ends:
            config["nextword_ends"] = self.other_ends
        if self.mask_name is not None:
            config["mask_token"] = self.mask_name
        if self.unknown_id is not None:
            config["unk_token"] = self.tokenizer.id_to_token(self.unknown_id)
        (folder / TOKENIZER_CONFIG).write_text(
            json.dumps(config, indent=2) + "\n", encoding="utf-8"
        )

    def _described_with(self, template: str, names_are_read: bool) -> str:
        """Return tokenizer.json's content, with end-of-text around texts where that is asked."""
        from tokenizers import Tokenizer
        from tokenizers.processors import TemplateProcessing

        end, copy = self.reserved[0], Tokenizer.from_str(self.tokenizer.to_str())
        if template:
            single = f"{end} $A {end}" if template == "both" else f"{end} $A"
            special = [(end, self.end_id)]
            copy.post_processor = TemplateProcessing(single=single, special_tokens=special)
        described = json.loads(copy.to_str())
        for entry in described["added_tokens"]:
            if names_are_read and entry["content"] == self.mask_name and self.has_spaced_pieces:
                entry["lstrip"] = True  # the space before it belongs to the piece that is hidden
        return json.dumps(described, ensure_ascii=False)

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Read the vocabulary of a model folder, ours or a public one.

        Raises:
            VocabularyError: tokenizer.json is missing or damaged, or names no end of text.
        """
        tokenizer = read_tokenizer(folder / TOKENIZER)
        config = read_tokenizer_config(folder)
        kind = config.nextword_kind or kind_of(tokenizer)
        names = [config.name_of(role) for role in ("eos_token", "pad_token", "mask_token")]
        if names[0] is None:
            raise VocabularyError(
                f"{folder / TOKENIZER_CONFIG}: no eos_token; name the entry that ends a text there"
            )
        begin = None if config.add_bos_token is False else config.name_of("bos_token")
        return cls(tokenizer, kind, names, begin, read_ends(folder))


def kind_of(tokenizer: "Tokenizer") -> str:
    """Name a vocabulary from elsewhere by the library's word for its model: BPE, WordPiece, …."""
    return str(json.loads(tokenizer.to_str())["model"]["type"])


def plain(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot carry.

    Raises:
        VocabularyError: it is no text.
    """
    if not isinstance(text, str):
        raise VocabularyError(f"expected a text, not {type(text).__name__}: {text!r}"[:80])
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
