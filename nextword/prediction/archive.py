"""The file format of model-compressed files: header, checks, receipt.

An archive is a head and the range coder's words:

    bytes  what
    4      "nxw", version of the format
    4      CRC-32 of all that follows: damage is told from another machine's arithmetic
    8      digest of the original bytes
    8      digest of the weights and the network's sizes
    4      digest of what each entry of the vocabulary spells
    4      digest of the processor's name
    4      digest of the arithmetic: the processor's instructions, and the last bits of two steps
    2      threads
    1      device
    1 + n  torch's version, at most 16 letters
    1–9    number of tokens, seven bits a byte
    4·k    words

No archive holds more than MOST_TOKENS tokens a byte: a count beyond that is refused before it is
begun with, and so is a file that would need it. Whatever would make the model's last bits, and so
the decoded file, come out otherwise is refused with its reason. The original's digest is compared
at the end.
"""

import os
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.base.errors import CorpusError, EvaluationError, RunError
from nextword.base.files import check_output, publish
from nextword.model.config import CONFIG
from nextword.prediction.coder import Lanes, Progress, Spelling, decode, encode
from nextword.prediction.fingerprint import Fingerprint, differences, digest_of, fingerprint_of
from nextword.prediction.loading import Opened

MAGIC, VERSION = b"nxw", 1
DEVICES = ("cpu", "cuda", "mps", "xpu")
MOST_TOKENS = 10_000
"""For each byte after the checksum: what a decoder may be asked to do by so small a file."""
_FIXED = struct.Struct("<8s8s4s4s4sHBB")
_BEFORE = struct.Struct("<3sBI")


class Head(NamedTuple):
    """What stands before the words."""

    original: bytes
    """Digest of the original bytes."""
    fingerprint: Fingerprint
    tokens: int


class Packed(NamedTuple):
    """An archive and what it is made of."""

    archive: bytes
    header_bytes: int
    tokens: int
    lanes: int
    ideal_bits: float


class Restored(NamedTuple):
    """What `decompress` did."""

    compressed_bytes: int
    original_bytes: int
    seconds: float


@dataclass(frozen=True)
class Receipt:
    """What a file takes up now, beside what the loss promised and others need."""

    original_bytes: int
    compressed_bytes: int
    header_bytes: int
    """Of the compressed ones: what does not depend on the text's length."""
    tokens: int
    lanes: int
    ideal_bits: float
    """Σ −log2 P(token): the summed loss, in bits."""
    seconds: float
    verified: bool
    """Whether what was written has been decoded again and was identical."""
    verify_seconds: float
    model_bytes: int
    """Weights, sizes and vocabulary, which whoever decodes must have."""
    rivals: dict[str, int]
    """Name of a general compressor → bytes it makes of the same file."""

    @property
    def bits_per_byte(self) -> float | None:
        """Bits written for each original byte; None for an empty file."""
        return 8 * self.compressed_bytes / self.original_bytes if self.original_bytes else None

    @property
    def overhead_bits(self) -> float:
        """Bits written above those promised."""
        return 8 * self.compressed_bytes - self.ideal_bits

    def as_dict(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        derived = {"bits_per_byte": self.bits_per_byte, "overhead_bits": self.overhead_bits}
        return {**asdict(self), **derived}


def compress(
    opened: Opened,
    file: Path,
    output: Path,
    *,
    force: bool = False,
    verify: bool = True,
    beside: Sequence[str] = ("xz", "PPMd"),
    progress: Progress | None = None,
) -> Receipt:
    """Write a file as the model's surprises.

    Args:
        opened: the model.
        file: any file.
        output: where the archive goes; it appears there complete or not at all.
        force: overwrite what is there.
        verify: decode what was written, and compare, before it gets its name.
        beside: general compressors to measure on the same file.
        progress: told how many tokens are done, of how many; verifying doubles them.

    Raises:
        VocabularyError: the model's vocabulary cannot spell every file.
        CorpusError: the file cannot be read.
        RunError: the output is in the way, or cannot be written.
        EvaluationError: what was written did not come back.
    """
    check_output(output, force=force, source=file)
    data, began, rounds = _read(file), time.monotonic(), 1 + verify
    packed = pack(opened, data, _part(progress, 0, rounds))
    packed_at, verified_at = time.monotonic(), 0.0
    aside = _write_aside(output, packed.archive)
    try:
        if verify:
            try:
                back = unpack(opened, aside.read_bytes(), _part(progress, 1, rounds))
            except EvaluationError as error:
                raise EvaluationError(
                    f"{file}: not written, it does not come back: {error}"
                ) from None
            if back != data:
                raise EvaluationError(f"{file}: not written, other bytes come back")
            verified_at = time.monotonic()
        _publish(aside, output, file, force)
    finally:
        aside.unlink(missing_ok=True)
    return Receipt(
        original_bytes=len(data),
        compressed_bytes=len(packed.archive),
        header_bytes=packed.header_bytes,
        tokens=packed.tokens,
        lanes=packed.lanes,
        ideal_bits=packed.ideal_bits,
        seconds=packed_at - began,
        verified=verify,
        verify_seconds=verified_at - packed_at if verify else 0.0,
        model_bytes=model_bytes(opened.folder),
        rivals=_rivals(data, beside),
    )


def decompress(
    opened: Opened,
    file: Path,
    output: Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Restored:
    """Write the file that an archive holds.

    Args:
        opened: the very model the archive was made with.
        file: the archive.
        output: where the original goes; it appears there complete or not at all.
        force: overwrite what is there.
        progress: told how many tokens are done, and of how many.

    Raises:
        CorpusError: the archive cannot be read.
        RunError: the output is in the way, or cannot be written.
        EvaluationError: it is damaged, or made by other means than those at hand.
    """
    check_output(output, force=force, source=file)
    archive, began = _read(file), time.monotonic()
    try:
        data = unpack(opened, archive, progress)
    except EvaluationError as error:
        raise EvaluationError(f"{file}: {error}; nothing was written") from None
    aside = _write_aside(output, data)
    try:
        _publish(aside, output, file, force)
    finally:
        aside.unlink(missing_ok=True)
    return Restored(len(archive), len(data), time.monotonic() - began)


def pack(opened: Opened, data: bytes, progress: Progress | None = None) -> Packed:
    """Turn bytes into an archive.

    Raises:
        VocabularyError: the model's vocabulary cannot spell every file.
    """
    spelling = Spelling(opened.vocabulary, opened.model.shape.vocab_size)
    tokens = spelling.tokens_of(data)
    lanes = Lanes.of(len(tokens), opened.model.shape).number
    fingerprint = fingerprint_of(opened.model, opened.machine, spelling, lanes)
    head = Head(digest_of([data], size=8), fingerprint, len(tokens))
    coded = encode(opened.model, tokens, opened.vocabulary.begin_id, spelling.spells, progress)
    rest = _head_bytes(head)
    header_bytes = _BEFORE.size + len(rest)
    rest += coded.words.astype("<u4").tobytes()
    if len(tokens) > MOST_TOKENS * len(rest):
        raise EvaluationError(
            f"{len(data):,} bytes would become {len(rest):,}, more regular than an archive may be "
            f"({MOST_TOKENS:,} tokens a byte); xz makes them small in no time"
        )
    archive = _BEFORE.pack(MAGIC, VERSION, zlib.crc32(rest)) + rest
    return Packed(archive, header_bytes, len(tokens), lanes, coded.ideal_bits)


def unpack(opened: Opened, archive: bytes, progress: Progress | None = None) -> bytes:
    """Turn an archive into the bytes it was made of.

    Raises:
        EvaluationError: it is damaged, or made by other means than those at hand.
    """
    head, words = read_archive(archive)
    spelling = Spelling(opened.vocabulary, opened.model.shape.vocab_size)
    lanes = Lanes.of(head.tokens, opened.model.shape).number
    here = fingerprint_of(opened.model, opened.machine, spelling, lanes)
    if reasons := differences(head.fingerprint, here):
        raise EvaluationError("; ".join(reasons))
    begin_id = opened.vocabulary.begin_id
    tokens = decode(opened.model, words, head.tokens, begin_id, spelling.spells, progress)
    data = spelling.bytes_of(tokens)
    if digest_of([data], size=8) != head.original:
        raise EvaluationError(
            "the decoded bytes are not the original's: this machine computes otherwise than the "
            "one the file was made on"
        )
    return data


def read_archive(archive: bytes) -> tuple[Head, NDArray[np.uint32]]:
    """Take an archive apart.

    Raises:
        EvaluationError: it is none, of another version, cut short or damaged.
    """
    if archive[: len(MAGIC)] != MAGIC:
        raise EvaluationError("not made by `nextword compress`")
    damaged = EvaluationError("cut short or damaged: its checksum does not fit")
    if len(archive) < _BEFORE.size:
        raise damaged
    _, version, checksum = _BEFORE.unpack_from(archive)
    if version != VERSION:
        raise EvaluationError(
            f"format {version}; this nextword reads format {VERSION}, take the one it was made with"
        )
    rest = archive[_BEFORE.size :]
    if zlib.crc32(rest) != checksum:
        raise damaged
    try:
        head, words = _parse(rest)
    except (IndexError, ValueError, struct.error):
        raise damaged from None
    return head, words


def model_bytes(folder: Path) -> int:
    """Count the bytes of weights, sizes and vocabulary in a model folder."""
    files = [*folder.glob("model*.safetensors"), folder / CONFIG, folder / "tokenizer.json"]
    return sum(file.stat().st_size for file in files if file.is_file())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CorpusError(f"{file}: cannot be read ({error.strerror})") from None


def _write_aside(output: Path, data: bytes) -> Path:
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunError(f"{output}: cannot be written ({error.strerror})") from None
    return aside


def _publish(aside: Path, output: Path, file: Path, force: bool) -> None:
    check_output(output, force=force, source=file)  # something may have come there in the meantime
    try:
        publish(aside, output)
    except OSError as error:
        raise RunError(f"{output}: cannot be written ({error.strerror})") from None


def _part(progress: Progress | None, number: int, rounds: int) -> Progress | None:
    """Let one of several rounds through the tokens report as its part of the whole."""
    if progress is None:
        return None
    whole = progress
    return lambda done, total: whole(number * total + done, rounds * total)


def _rivals(data: bytes, names: Sequence[str]) -> dict[str, int]:
    if not data or not names:
        return {}
    from nextword.prediction.baselines import squeeze

    return {found.name: found.cold for found in squeeze(data, names=tuple(names))}


def _head_bytes(head: Head) -> bytes:
    fingerprint = head.fingerprint
    words = fingerprint.torch.encode()
    fixed = _FIXED.pack(
        head.original,
        fingerprint.weights,
        fingerprint.vocabulary,
        fingerprint.processor,
        fingerprint.arithmetic,
        fingerprint.threads,
        DEVICES.index(fingerprint.device),
        len(words),
    )
    return fixed + words + _short(head.tokens)


def _parse(rest: bytes) -> tuple[Head, NDArray[np.uint32]]:
    original, weights, vocabulary, processor, arithmetic, threads, device, letters = (
        _FIXED.unpack_from(rest)
    )
    place = _FIXED.size + letters
    version = rest[_FIXED.size : place].decode()
    fingerprint = Fingerprint(
        weights, vocabulary, processor, arithmetic, threads, DEVICES[device], version
    )
    tokens, place = _long(rest, place)
    if tokens > MOST_TOKENS * len(rest):
        raise ValueError("more tokens than an archive may hold")
    words = np.frombuffer(rest[place:], dtype="<u4").astype(np.uint32)
    return Head(original, fingerprint, tokens), words


def _short(number: int) -> bytes:
    """Write a number seven bits a byte, the lowest first."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _long(data: bytes, place: int) -> tuple[int, int]:
    """Read such a number; return it and the place after it."""
    number = shift = 0
    while data[place] > 127 and shift < 63:
        number |= (data[place] & 127) << shift
        place, shift = place + 1, shift + 7
    return number | data[place] << shift, place + 1
