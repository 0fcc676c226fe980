"""Compressor baselines: gzip, zstd, xz and PPMd on the bytes that the model is scored on.

A compressor is a language model that knows nothing of words, so bytes × 8 ÷ bytes of text is a
figure to put beside bits per byte. Sizes are those of whole files: headers, checksums and rounding
to blocks are in them, 5 (PPMd) to 60 (xz) bytes, which matters to short texts only.
"""

import gzip
import lzma
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nextword.base.errors import EvaluationError

THREADS = 2
"""All four let other threads run; each may hold eleven times its text (xz), so no more at once."""
PPMD_ORDER = 6
PPMD_LARGEST_MEMORY = 256 << 20
PPMD_BYTES_PER_BYTE = 64
"""Memory offered for each byte of text.

Random bytes, the worst there are, fill 20. A smaller text is compressed to the same size with less.
"""
ZSTANDARD_LEVEL = 19
ZSTANDARD_CHAIN = 26
"""At most 2^26 entries of four bytes; farther back only matches of 64 bytes and more are found."""


@dataclass(frozen=True)
class Squeezed:
    """What one compressor made of a text."""

    name: str
    cold: int
    """Bytes of the compressed text, by a compressor that has seen nothing before."""
    primed: int | None
    """Bytes that the text adds to the compressed training text; None where there is none."""


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)


def _zstandard(data: bytes) -> bytes:
    """As `zstd -19 --long` does, with a window and a search tree that span the whole text."""
    import zstandard

    window = min(max(len(data).bit_length(), zstandard.WINDOWLOG_MIN), zstandard.WINDOWLOG_MAX)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTANDARD_LEVEL,
        source_size=len(data),
        window_log=window,
        chain_log=min(window + 1, ZSTANDARD_CHAIN),
        enable_ldm=True,
        write_checksum=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _xz(data: bytes) -> bytes:
    """As `xz -9e` does; the dictionary is the text's size, for it costs eleven times its memory."""
    dictionary = min(max(len(data), 4096), 3 << 29)
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}
    return lzma.compress(data, format=lzma.FORMAT_XZ, filters=[lzma2])


def _ppmd(data: bytes) -> bytes:
    """Predict each byte from those before it (variant I), the nearest to a language model here."""
    import pyppmd

    compressed: bytes = pyppmd.compress(
        data, max_order=PPMD_ORDER, mem_size=ppmd_memory(len(data)), variant="I"
    )
    return compressed


def ppmd_memory(num_bytes: int) -> int:
    """Return the memory that PPMd gets for a text; decompressing asks for the same.

    Where the text fills it, beyond about 30 MB, the model forgets everything and begins anew.

    Args:
        num_bytes: of the text.

    Returns:
        bytes.
    """
    return min(max(num_bytes * PPMD_BYTES_PER_BYTE, 1 << 20), PPMD_LARGEST_MEMORY)


COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "zstd": _zstandard,
    "xz": _xz,
    "PPMd": _ppmd,
}
"""Each makes a complete file of some bytes; a new one is one more line."""


def squeeze(
    holdout: bytes, training: bytes | None = None, names: Sequence[str] = tuple(COMPRESSORS)
) -> list[Squeezed]:
    """Compress a held-out text, once on its own and once after the training text.

    The second is the fair one beside a model that has read the training text. It is a difference of
    two sizes, training and holdout together less training alone, so the headers fall out of it, but
    how blocks and roundings happen to fall stays in: up to some 50 bytes either way, zstd the most.
    Below a kilobyte or so of compressed holdout that is noise, not a finding. It is never below 0.
    gzip reaches back 32 KiB, so of the training text only its end can help it.

    Args:
        holdout: raw bytes of the text to measure.
        training: raw bytes of the text before it, or None.
        names: keys of `COMPRESSORS`.

    Returns:
        one for each name, in that order.

    Raises:
        EvaluationError: a name is not known.
    """
    for name in names:
        if name not in COMPRESSORS:
            raise EvaluationError(
                f"{name}: no such compressor; choose from {', '.join(COMPRESSORS)}"
            )
    texts = [holdout] if training is None else [holdout, training, training + holdout]
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [[pool.submit(_size, name, text) for text in texts] for name in names]
        sizes = [[size.result() for size in row] for row in waiting]
    return [
        Squeezed(name, row[0], max(row[2] - row[1], 0) if len(row) > 1 else None)
        for name, row in zip(names, sizes, strict=True)
    ]


def _size(name: str, text: bytes) -> int:
    return len(COMPRESSORS[name](text))
