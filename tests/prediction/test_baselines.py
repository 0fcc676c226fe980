import gzip
import lzma

import numpy as np
import pyppmd
import pytest
import zstandard

from nextword.base.errors import EvaluationError
from nextword.prediction.baselines import (
    COMPRESSORS,
    PPMD_LARGEST_MEMORY,
    PPMD_ORDER,
    Squeezed,
    ppmd_memory,
    squeeze,
)

DECOMPRESSORS = {
    "gzip": lambda data, size: gzip.decompress(data),
    "zstd": lambda data, size: zstandard.ZstdDecompressor().decompress(data),
    "xz": lambda data, size: lzma.decompress(data),
    "PPMd": lambda data, size: pyppmd.decompress(
        data, max_order=PPMD_ORDER, mem_size=ppmd_memory(size)
    ),
}


def words(seed, count):
    """Text of 2000 made-up words, some of them frequent."""
    source = np.random.default_rng(0)
    letters = [
        source.integers(97, 123, length, dtype=np.uint8).tobytes()
        for length in source.integers(2, 9, 2000)
    ]
    chosen = np.random.default_rng(seed).zipf(1.3, count) % len(letters)
    return b" ".join(letters[word] for word in chosen)


TRAINING = words(1, 15_000)
HOLDOUT = words(2, 5_000)


def test_every_compressor_is_tested():
    assert set(DECOMPRESSORS) == set(COMPRESSORS)


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a",
        b"\0" * 5000,
        b"abc\0\0\0",
        "Übergröße 🦊\r\n".encode() * 7,
        np.random.default_rng(3).bytes(70_000),
        HOLDOUT,
        TRAINING,
    ],
    ids=["empty", "a", "zeros", "zeros at the end", "unicode", "random", "holdout", "training"],
)
def test_the_bytes_come_back(name, data):
    compressed = COMPRESSORS[name](data)
    assert DECOMPRESSORS[name](compressed, len(data)) == data
    assert squeeze(data, names=[name]) == [Squeezed(name, len(compressed), None)]


def test_primed_is_the_difference_of_two_sizes():
    found = squeeze(HOLDOUT, TRAINING)
    assert [one.name for one in found] == list(COMPRESSORS)
    for one in found:
        compress = COMPRESSORS[one.name]
        assert one.cold == len(compress(HOLDOUT))
        assert one.primed == len(compress(TRAINING + HOLDOUT)) - len(compress(TRAINING))


def test_only_the_named_ones_in_their_order():
    assert [one.name for one in squeeze(b"text", names=["xz", "gzip"])] == ["xz", "gzip"]
    assert squeeze(b"text", names=[]) == []
    with pytest.raises(EvaluationError, match="brotli: no such compressor; choose from gzip"):
        squeeze(b"text", names=["gzip", "brotli"])


@pytest.mark.parametrize(("name", "share"), [("zstd", 0.02), ("xz", 0.02), ("PPMd", 0.7)])
def test_what_was_read_before_costs_little(name, share):
    (found,) = squeeze(TRAINING, TRAINING, [name])
    assert found.primed is not None
    assert found.primed < share * found.cold


@pytest.mark.parametrize("name", ["zstd", "xz", "PPMd"])
def test_another_text_of_the_same_words_helps(name):
    (found,) = squeeze(HOLDOUT, TRAINING, [name])
    assert found.primed is not None
    assert found.primed < 0.95 * found.cold


def test_gzip_forgets_what_lies_more_than_32_kib_back():
    assert len(TRAINING) > 1 << 16
    near, far = TRAINING[-20_000:], TRAINING[:20_000]
    (found,) = squeeze(near, TRAINING, ["gzip"])
    assert found.primed is not None
    assert found.primed < 0.1 * found.cold
    (found,) = squeeze(far, TRAINING, ["gzip"])
    assert found.primed is not None
    assert found.primed > 0.8 * found.cold
    (found,) = squeeze(far, TRAINING, ["xz"])
    assert found.primed is not None
    assert found.primed < 0.1 * found.cold


def test_nothing_costs_its_headers_only():
    for one in squeeze(b"", TRAINING):
        assert one.primed == 0
        assert 0 < one.cold <= 60
    for one in squeeze(HOLDOUT, b""):
        assert one.primed is not None
        assert 0 < one.cold - one.primed <= 60


@pytest.mark.parametrize("name", COMPRESSORS)
def test_primed_is_never_negative(name, monkeypatch):
    monkeypatch.setitem(COMPRESSORS, name, lambda data: bytes(1000 - len(data)))
    assert squeeze(b"abc", b"de", [name]) == [Squeezed(name, 997, 0)]


def test_ppmd_gets_all_the_memory_it_can_use():
    """A memory that was full would change the size: the model begins anew."""
    for text in (TRAINING, np.random.default_rng(4).bytes(300_000)):
        size = len(COMPRESSORS["PPMd"](text))
        most = pyppmd.compress(text, max_order=PPMD_ORDER, mem_size=PPMD_LARGEST_MEMORY)
        assert ppmd_memory(len(text)) < PPMD_LARGEST_MEMORY
        assert size == len(most)
    assert ppmd_memory(1 << 40) == PPMD_LARGEST_MEMORY
