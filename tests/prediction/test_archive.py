import dataclasses
import json
import os
import zlib

import pytest
import torch

from nextword.base.errors import EvaluationError, NextwordError, RunError
from nextword.machine.device import Machine
from nextword.prediction import archive, coder, fingerprint
from nextword.prediction.archive import compress, decompress, pack, unpack
from nextword.prediction.coder import Spelling
from nextword.rendering.receipt import describe_receipt
from tests.prediction.test_compress import english, opened, vocabulary

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return opened()


# Refusals: each line makes an archive under other conditions and reads it under ours.


def other_weights(monkeypatch):
    changed = opened()
    with torch.no_grad():
        changed.model.model.norm.weight[0] += 1e-6
    return changed


def other_vocabulary(monkeypatch):
    return opened(words=vocabulary(size=290), vocab_size=len(vocabulary()))


def other_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    return opened()


def other_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    return opened()


def other_instructions(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SSE")
    return opened()


def other_processor(monkeypatch):
    monkeypatch.setattr(Machine, "describe", lambda self: {"name": "Abacus"})
    return opened()


def other_last_bits(monkeypatch):
    read = coder.Stepper.read
    monkeypatch.setattr(coder.Stepper, "read", lambda self, ids: read(self, ids) * (1 + 1e-15))
    return opened()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (other_weights, "made with other weights: another run or checkpoint"),
        (other_vocabulary, "made with another vocabulary"),
        (other_threads, "made with 7 threads, this is .*: give --machine.threads 7"),
        (other_torch, f"made with torch 2.9.1, this is {torch.__version__[:5]}"),
        (other_instructions, "made with other processor instructions"),
        (other_processor, "made on another processor"),
        (other_last_bits, "made with other processor instructions or settings of arithmetic"),
    ],
)
def test_what_was_made_otherwise_is_refused_with_the_reason(make, reason, model, tmp_path):
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = pack(make(monkeypatch), english(500)).archive
    (tmp_path / "made").write_bytes(made)
    with pytest.raises(EvaluationError, match=reason) as refused:
        decompress(model, tmp_path / "made", tmp_path / "out")
    assert str(refused.value).startswith(f"{tmp_path / 'made'}: made ")
    assert os.listdir(tmp_path) == ["made"]


def test_another_device_is_named_with_the_option_that_helps(model):
    here = fingerprint.fingerprint_of(
        model.model, model.machine, Spelling(model.vocabulary, 320), 1
    )
    there = here._replace(device="cuda", processor=b"none", arithmetic=b"none")
    assert fingerprint.differences(there, here) == [
        "made on cuda, this is cpu: give --machine.device cuda"
    ]
    assert fingerprint.differences(here, here) == []


def test_another_format_and_foreign_files_are_refused(model):
    made = pack(model, b"cat").archive
    with pytest.raises(EvaluationError, match="format 2; this nextword reads format 1"):
        unpack(model, made[:3] + b"\x02" + made[4:])
    for foreign in (b"", b"nx", b"PK\x03\x04" * 30, b"\x1f\x8b" + bytes(99)):
        with pytest.raises(EvaluationError, match="not made by `nextword compress`"):
            unpack(model, foreign)


def test_no_bit_may_flip_and_no_byte_be_missing(model):
    made = pack(model, b"The cat sat").archive
    for place in range(4, len(made)):
        flipped = bytearray(made)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(EvaluationError, match="cut short or damaged"):
            unpack(model, bytes(flipped))
    for size in range(4, len(made)):
        with pytest.raises(EvaluationError, match="cut short or damaged"):
            unpack(model, made[:size])


def sealed(made, rest):
    """Put a checksum that fits before something else."""
    return made[:4] + zlib.crc32(rest).to_bytes(4, "little") + rest


def test_a_head_that_ends_too_early_is_damaged_whatever_its_checksum(model):
    packed = pack(model, b"The cat sat")
    rest = packed.archive[8 : packed.header_bytes]
    for cut in [*(rest[:size] for size in range(len(rest))), rest + b"odd", b"\xff" * len(rest)]:
        with pytest.raises(EvaluationError, match="cut short or damaged"):
            unpack(model, sealed(packed.archive, cut))


def test_damage_that_the_checksum_misses_is_never_decoded_wrong(model):
    data = english(400)
    packed = pack(model, data)
    made, head = packed.archive, packed.header_bytes - 8
    for place in [*range(8), *range(head, len(made) - 8, 7)]:
        for value in (0, 255):
            rest = bytearray(made[8:])
            rest[place] = value
            wrong = sealed(made, bytes(rest))
            try:
                assert unpack(model, wrong) == data
            except EvaluationError:
                assert wrong != made


def test_the_head_is_short_and_its_numbers_are_in_clear(model):
    packed = pack(model, english(9001))
    head, words = archive.read_archive(packed.archive)
    assert packed.header_bytes + 4 * len(words) == len(packed.archive)
    assert packed.header_bytes <= 54
    assert (head.tokens, head.fingerprint.threads) == (packed.tokens, torch.get_num_threads())
    assert torch.__version__[:16].encode() in packed.archive


# Files: where the archive goes, and that it goes there whole or not at all.


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(english(900))
    return file


@pytest.fixture
def saved(model, tmp_path_factory):
    """The same model with a folder that has the files whose bytes are counted."""
    folder = tmp_path_factory.mktemp("model")
    sizes = {"model-00001-of-00002.safetensors": 500, "model-00002-of-00002.safetensors": 70}
    sizes |= {"config.json": 6, "tokenizer.json": 1000, "optimizer.bin": 9999}
    for name, size in sizes.items():
        (folder / name).write_bytes(bytes(size))
    return dataclasses.replace(model, folder=folder)


def test_files_there_and_back_and_the_receipt(saved, text):
    told = []
    made, back = text.with_name("made"), text.with_name("back")
    receipt = compress(saved, text, made, progress=lambda done, total: told.append((done, total)))
    assert receipt.original_bytes == 900
    assert receipt.compressed_bytes == made.stat().st_size
    assert receipt.verified
    assert receipt.model_bytes == 500 + 70 + 6 + 1000
    assert list(receipt.rivals) == ["xz", "PPMd"]
    assert all(100 < size < 900 for size in receipt.rivals.values())
    assert receipt.as_dict()["bits_per_byte"] == pytest.approx(receipt.compressed_bytes / 112.5)
    assert told == sorted(told)
    assert told[-1] == (2 * receipt.tokens, 2 * receipt.tokens)
    assert json.loads(json.dumps(receipt.as_dict())) == receipt.as_dict()
    restored = decompress(saved, made, back)
    assert restored.original_bytes == 900
    assert back.read_bytes() == text.read_bytes()
    assert sorted(os.listdir(text.parent)) == ["back", "made", "text"]


def test_nothing_is_overwritten_unless_asked(saved, text):
    there = text.with_name("there")
    there.write_bytes(b"precious")
    with pytest.raises(RunError, match="exists already"):
        compress(saved, text, there)
    with pytest.raises(RunError, match="exists already"):
        decompress(saved, text, there)
    assert there.read_bytes() == b"precious"
    compress(saved, text, there, force=True, beside=())
    assert there.read_bytes() != b"precious"
    with pytest.raises(RunError, match="the very file that is read"):
        compress(saved, text, text.parent / "." / text.name, force=True)
    os.link(text, text.with_name("link"))
    with pytest.raises(RunError, match="the very file that is read"):
        compress(saved, text, text.with_name("link"), force=True)
    with pytest.raises(RunError, match="not a plain file"):
        compress(saved, text, text.parent, force=True)
    with pytest.raises(RunError, match="no such folder"):
        compress(saved, text, text.parent / "no" / "out")
    with pytest.raises(NextwordError, match="cannot be read"):
        compress(saved, text.with_name("none"), text.with_name("new"))
    assert text.read_bytes() == english(900)


def test_what_came_there_in_the_meantime_is_kept(saved, text):
    made = text.with_name("made")
    with pytest.raises(RunError, match="exists already"):
        compress(saved, text, made, progress=lambda done, total: made.write_bytes(b"precious"))
    assert made.read_bytes() == b"precious"
    assert sorted(os.listdir(text.parent)) == ["made", "text"]
    compress(saved, text, made, force=True, beside=())
    back = text.with_name("back")
    with pytest.raises(RunError, match="exists already"):
        decompress(saved, made, back, progress=lambda done, total: back.write_bytes(b"precious"))
    assert back.read_bytes() == b"precious"
    assert sorted(os.listdir(text.parent)) == ["back", "made", "text"]


@pytest.mark.parametrize("stopped_at", [0.0, 0.9])
def test_an_interruption_leaves_nothing_behind(saved, text, stopped_at):
    def stop(done, total):
        if done / total > stopped_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(saved, text, text.with_name("made"), progress=stop)
    assert os.listdir(text.parent) == ["text"]


def test_what_does_not_come_back_is_not_written(saved, text, monkeypatch):
    honest = archive.decode

    def forgetful(*args):
        tokens = honest(*args)
        tokens[:2] = tokens[1], tokens[0]
        return tokens

    monkeypatch.setattr(archive, "decode", forgetful)
    with pytest.raises(EvaluationError, match="not written, it does not come back"):
        compress(saved, text, text.with_name("made"))
    assert os.listdir(text.parent) == ["text"]
    with monkeypatch.context() as lying:
        lying.setattr(archive, "unpack", lambda *args: english(900)[::-1])
        with pytest.raises(EvaluationError, match="not written, other bytes come back"):
            compress(saved, text, text.with_name("made"))
    assert os.listdir(text.parent) == ["text"]
    receipt = compress(saved, text, text.with_name("made"), verify=False, beside=())
    assert not receipt.verified
    with pytest.raises(EvaluationError, match="computes otherwise"):
        decompress(saved, text.with_name("made"), text.with_name("back"))
    assert sorted(os.listdir(text.parent)) == ["made", "text"]


# The receipt in words.

RECEIPT = archive.Receipt(
    original_bytes=200_000,
    compressed_bytes=16_560,
    header_bytes=56,
    tokens=44_030,
    lanes=32,
    ideal_bits=132_080.0,
    seconds=2.0,
    verified=True,
    verify_seconds=2.5,
    model_bytes=3_500_000,
    rivals={"xz": 36_560, "PPMd": 26_560},
)


def test_the_receipt_says_what_was_promised_and_what_was_taken():
    words = describe_receipt(RECEIPT)
    for said in (
        "promised       16,510 bytes = 132,080 bits",
        "taken          16,560 bytes, the file has 200,000: 12.1 times shorter",
        "difference     50 bytes more (0.30%); 56 bytes say",
        "decoded again  identical, byte for byte (2.5 s)",
        "3.00 bits for each token",
        "It pays beside PPMd from about 70.0 MB of such text on.",
    ):
        assert said in words
    rows = [line.rsplit(maxsplit=2) for line in words.splitlines()]
    assert ["this model", "16,560", "0.662"] in rows
    assert ["… and the model itself", "3,516,560", "140.662"] in rows
    assert ["xz", "36,560", "1.462"] in rows


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verified": False}, "not tried (--no-verify)"),
        ({"rivals": {"xz": 16_000}}, "xz needs none, and makes this file at least as short."),
        ({"model_bytes": 5_000}, "Even with that it is shorter here than PPMd."),
        ({"rivals": {}}, "Whoever decodes needs the model too, 3,500,000 bytes."),
        ({"ideal_bits": 133_000.0}, "65 bytes less (0.39%)"),
        ({"original_bytes": 9_000}, "longer, for such text is new to the model"),
        ({"original_bytes": 0, "tokens": 0, "ideal_bits": 0.0}, "the file is empty"),
    ],
)
def test_the_receipt_has_words_for_what_is_unusual(changes, said):
    assert said in describe_receipt(dataclasses.replace(RECEIPT, **changes))


def test_a_promise_of_endless_tokens_is_refused_though_its_checksum_fits():
    rest = archive._FIXED.pack(bytes(8), bytes(8), bytes(4), bytes(4), bytes(4), 1, 0, 0)
    for count in (10**7, 2**60, 2**200):
        told = rest + archive._short(count) + bytes(8)
        whole = archive._BEFORE.pack(b"nxw", 1, zlib.crc32(told)) + told
        with pytest.raises(EvaluationError, match="damaged"):
            archive.read_archive(whole)
    told = rest + archive._short(1000) + bytes(8)
    whole = archive._BEFORE.pack(b"nxw", 1, zlib.crc32(told)) + told
    assert archive.read_archive(whole)[0].tokens == 1000
