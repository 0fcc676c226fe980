"""A vocabulary: text → pieces → ids, and back. Hugging Face's `tokenizers` does the work.

`tokenizer.json` is the format.
"""

import json
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextword.base.errors import VocabularyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
MASK = "<|mask|>"
UNKNOWN = "<|unknown|>"
RESERVED = (END_OF_TEXT, PAD, MASK)


class Vocabulary:
    """All that the model knows: a fixed list of pieces, each with an id."""

    def __init__(
        self, tokenizer: "Tokenizer", kind: str, reserved: Sequence[str] = RESERVED
    ) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: of the `tokenizers` library.
            kind: bpe, byte, char, or where it came from.
            reserved: names of the end-of-text, pad and mask entries.
        """
        tokenizer.encode_special_tokens = True  # a reserved name in a user's text is ordinary text
        self.tokenizer = tokenizer
        self.kind = kind
        self.reserved = tuple(reserved)
        end = tokenizer.token_to_id(reserved[0])
        if end is None:
            raise VocabularyError(
                f"the vocabulary has no entry {reserved[0]!r} to mark the end of a text"
            )
        self.end_id: int = end
        self.pad_id: int | None = tokenizer.token_to_id(reserved[1]) if len(reserved) > 1 else None
        self.unknown_id: int | None = tokenizer.token_to_id(UNKNOWN)
        self.mask_id: int | None = tokenizer.token_to_id(reserved[2]) if len(reserved) > 2 else None

    def __len__(self) -> int:
        """Count the entries, reserved ones included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def is_lossless(self) -> bool:
        """Whether decode(encode(text)) is the text for every text."""
        return self.kind in ("bpe", "byte")

    def encode(self, text: str) -> list[int]:
        """Turn a text into ids."""
        return list(self.tokenizer.encode(_plain(text), add_special_tokens=False).ids)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, on all cores."""
        encodings = self.tokenizer.encode_batch_fast(
            [_plain(text) for text in texts], add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text; reserved entries are left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def piece(self, id_: int) -> str:
        """Return what an id stands for, as it stands in a text: a leading space included.

        Raises:
            VocabularyError: no entry has this id.
        """
        entry = self.tokenizer.id_to_token(id_) if 0 <= id_ < len(self) else None
        if entry is None:
            raise VocabularyError(f"no entry {id_}: this vocabulary holds ids 0 to {len(self) - 1}")
        if entry in self.reserved or entry == UNKNOWN:
            return str(entry)
        return self._entry_bytes(entry).decode("utf-8", "replace")

    def piece_bytes(self, id_: int) -> bytes:
        """Return the bytes an id spells; none for reserved entries."""
        entry = self.tokenizer.id_to_token(id_)
        plain = entry is not None and entry not in self.reserved and entry != UNKNOWN
        return self._entry_bytes(str(entry)) if plain else b""

    def _entry_bytes(self, entry: str) -> bytes:
        if not self._is_byte_level:
            return entry.encode("utf-8", "surrogatepass")
        table = byte_of_letter()
        if all(letter in table for letter in entry):
            return bytes(table[letter] for letter in entry)
        return entry.encode("utf-8")

    @cached_property
    def _is_byte_level(self) -> bool:
        return "ByteLevel" in json.dumps(json.loads(self.tokenizer.to_str()).get("decoder") or {})

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `transformers` reads them."""
        (folder / "tokenizer.json").write_text(
            self.tokenizer.to_str(pretty=False), encoding="utf-8"
        )
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": True,
            "model_max_length": int(1e30),
            "eos_token": self.reserved[0],
            "pad_token": self.reserved[1] if len(self.reserved) > 1 else self.reserved[0],
            "nextword_kind": self.kind,
        }
        if len(self.reserved) > 2:
            config["mask_token"] = self.reserved[2]
        if self.tokenizer.token_to_id(UNKNOWN) is not None:
            config["unk_token"] = UNKNOWN
        (folder / "tokenizer_config.json").write_text(
            json.dumps(config, indent=2) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Read the vocabulary of a model folder, ours or a public one.

        Raises:
            VocabularyError: tokenizer.json is missing or damaged, or names no end of text.
        """
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise VocabularyError(
                f"{file}: no such file; a model folder holds its vocabulary there"
            )
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise VocabularyError(f"{file}: damaged vocabulary ({error})") from None
        config_file = folder / "tokenizer_config.json"
        config = (
            json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
        )
        kind = config.get("nextword_kind", json.loads(tokenizer.to_str())["model"]["type"].lower())
        names = [_token_name(config.get(key)) for key in ("eos_token", "pad_token", "mask_token")]
        if names[0] is None:
            raise VocabularyError(
                f"{config_file}: no eos_token; name the entry that ends a text there"
            )
        return cls(tokenizer, kind, [name for name in names if name is not None])


def _token_name(entry: Any) -> str | None:
    return entry.get("content") if isinstance(entry, dict) else entry


def _plain(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot carry."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text


@cache
def byte_of_letter() -> dict[str, int]:
    """Return the byte that each letter of the byte-level alphabet stands for.

    Bytes that print as themselves keep their code point; the others are moved, in order, to 256 and
    up. Source: the alphabet of GPT-2's vocabulary (Radford et al. 2019).
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(printing)]
    table = {chr(byte): byte for byte in printing}
    table.update({chr(256 + place): byte for place, byte in enumerate(moved)})
    return table
