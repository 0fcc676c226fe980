"""The byte-level alphabet (as in GPT-2): how bytes are written as characters, and back.

`tokenizer.json` writes entries as text; how that text stands for a user's text depends on the
decoder: byte letters, "▁" for a space, "##" for going on inside a word, "<0x0A>" for a byte.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

_BYTE_NAME = re.compile(r"<0x([0-9A-Fa-f]{2})>")


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


@cache
def _letter_of_byte() -> dict[int, str]:
    return {byte: letter for letter, byte in byte_of_letter().items()}


def to_letters(raw: bytes) -> str:
    """Write bytes in the letters of the byte-level alphabet."""
    table = _letter_of_byte()
    return "".join(table[byte] for byte in raw)


def to_bytes(letters: str) -> bytes:
    """Return the bytes that letters of the byte-level alphabet stand for."""
    table = byte_of_letter()
    return bytes(table[letter] for letter in letters)


class Speller:
    """Says which bytes of text an entry of a vocabulary stands for."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        """Look at the decoder and the model.

        Args:
            description: the content of tokenizer.json.
        """
        steps = _steps(description.get("decoder"))
        kinds = {step["type"] for step in steps}
        model = description["model"]
        self.is_byte_level = "ByteLevel" in kinds
        self.has_byte_names = "ByteFallback" in kinds or bool(model.get("byte_fallback"))
        self.continues = model.get("continuing_subword_prefix") or ""
        self.spaced = model["type"] == "WordPiece" and not self.is_byte_level
        self.space = next(
            (step["replacement"] for step in steps if step["type"] == "Metaspace"),
            "▁" if self.has_byte_names else "",
        )

    def spell(self, entry: str) -> bytes:
        """Return the bytes of an ordinary entry, a leading space included."""
        if self.continues and entry.startswith(self.continues):
            entry = entry.removeprefix(self.continues)
        elif self.spaced:
            entry = " " + entry
        if self.is_byte_level:
            table = byte_of_letter()
            if all(letter in table for letter in entry):
                return bytes(table[letter] for letter in entry)
        elif self.has_byte_names and (name := _BYTE_NAME.fullmatch(entry)):
            return bytes([int(name[1], 16)])
        if self.space:
            entry = entry.replace(self.space, " ")
        return entry.encode("utf-8", "surrogatepass")


def _steps(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return a decoder's steps, those of sequences within it in their places."""
    if not decoder:
        return []
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _steps(part)]
    return [decoder]
