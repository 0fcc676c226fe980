import dataclasses
import json
import math
import os
import random
import zlib

import constriction
import numpy as np
import pytest
import torch
from tokenizers import normalizers

from nextword.base.errors import EvaluationError, ModelError, NextwordError, RunError
from nextword.base.errors import VocabularyError as Refused
from nextword.explanation.render.receipt import describe_receipt
from nextword.machine.device import Machine
from nextword.model.shape import Shape
from nextword.prediction import archive, coder
from nextword.prediction.archive import compress, decompress, pack, unpack
from nextword.prediction.coder import Lanes, Spelling
from nextword.prediction.open import Opened
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import train_vocabulary
from tests.model.test_transformer import SHAPE, scattered

SENTENCES = "The cat sat on the mat. Grüße aus Köln, said the dog; and the café was shut.\n" * 40
CONTEXT = 8


def vocabulary(kind="bpe", size=320):
    return train_vocabulary([SENTENCES], 9000, VocabularySettings(kind=kind, size=size))


def opened(folder=None, words=None, seed=0, **sizes):
    """A model that nobody trained, whose every weight matters, in a context of 8."""
    words = words or vocabulary()
    sizes = {**SHAPE.__dict__, "vocab_size": len(words), "context": CONTEXT, **sizes}
    machine = Machine(torch.device("cpu"), torch.float32)
    return Opened(folder, None, None, scattered(Shape(**sizes), seed), words, machine)


@pytest.fixture(scope="module")
def model():
    return opened()


def english(size, seed=0):
    source = random.Random(seed)
    words = SENTENCES.split()
    return " ".join(source.choice(words) for _ in range(size)).encode()[:size]


FILES = {
    "empty": b"",
    "one byte": b"a",
    "one byte that is no text": b"\xff",
    "every byte": bytes(range(256)),
    "binary": random.Random(0).randbytes(1200),
    "line ends": "a\r\nb\rc\n\r\n\n\n  \tü\r\n".encode(),
    "zeros": b"\0" * 100 + b"cat\0\0mat\0",
    "reserved names": b"<|endoftext|>The <|pad|> cat<|mask|><|endoftext|>",
    "cut characters": "Köln日本🙂".encode()[1:-1] + b" cat \xc3" + "日".encode()[:2],
    "surrogates": "\ud83d\udc80 cat \udcff".encode("utf-8", "surrogatepass"),
    "one context": b"\x01" * CONTEXT,
    "a token more than a lane": b"\x01" * (8 * CONTEXT + 1),
    "three lanes": english(400),
    "32 lanes": english(6001),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_every_file_comes_back_byte_for_byte(model, data):
    packed = pack(model, data)
    assert unpack(model, packed.archive) == data


@pytest.mark.parametrize("kind", ["byte", "unigram", "wordpiece"])
def test_other_kinds_of_vocabulary_give_it_back_too(kind):
    other = opened(words=vocabulary(kind))
    data = FILES["cut characters"] + english(900)
    assert unpack(other, pack(other, data).archive) == data


@pytest.mark.parametrize("sizes", [{"context": 1}, {"context": 2}, {"context": 5}])
def test_contexts_that_have_no_half_give_it_back_too(sizes):
    other = opened(**sizes)
    assert unpack(other, pack(other, english(600)).archive) == english(600)


def test_more_logits_than_entries_and_entries_than_logits():
    words = vocabulary()
    for entries in (len(words) + 40, 300):
        other = opened(words=words, vocab_size=entries)
        assert unpack(other, pack(other, english(600)).archive) == english(600)


def test_a_run_that_the_vocabulary_changes_is_written_in_bytes_and_only_that():
    words = vocabulary()
    words.tokenizer.normalizer = normalizers.Lowercase()
    spelling = Spelling(words, len(words))
    small, mixed = b"the cat sat on the mat " * 40, b"the cat sat on the mat " * 39 + b"THE CAT"
    assert spelling.bytes_of(spelling.tokens_of(mixed)) == mixed
    plain, bytewise = len(spelling.tokens_of(small)), len(mixed)
    assert plain < len(spelling.tokens_of(mixed)) < plain + 100 < bytewise


def test_text_goes_in_by_pieces_and_not_by_bytes(model):
    spelling = Spelling(model.vocabulary, len(model.vocabulary))
    text = SENTENCES.encode()
    assert spelling.tokens_of(text).tolist() == model.vocabulary.encode(SENTENCES)
    within = spelling.tokens_of(b"\xff" + text + b"\xfe")[1:-1]
    assert within.tolist() == model.vocabulary.encode(SENTENCES)


def test_a_long_text_is_encoded_in_parts(model, monkeypatch):
    monkeypatch.setattr(coder, "_AT_ONCE", 100)
    spelling = Spelling(model.vocabulary, len(model.vocabulary))
    for data in (SENTENCES.encode(), "日本語".encode() * 200, b"\n" * 301):
        assert spelling.bytes_of(spelling.tokens_of(data)) == data


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_vocabulary_without_all_bytes_is_refused_before_anything_is_written(kind, tmp_path):
    (tmp_path / "in").write_bytes(b"cat")
    with pytest.raises(Refused, match="of the 256 bytes"):
        compress(opened(words=vocabulary(kind)), tmp_path / "in", tmp_path / "out")
    assert os.listdir(tmp_path) == ["in"]


def test_lanes_are_contiguous_and_differ_by_one_token():
    assert Lanes.of(4 * CONTEXT * 2 - 1, CONTEXT).number == 1
    assert Lanes.of(0, CONTEXT) == Lanes(1, 0, 0)
    assert Lanes.of(10**6, CONTEXT) == Lanes(32, 31250, 0)
    lanes = Lanes.of(4 * CONTEXT * 3 + 2, CONTEXT)
    assert lanes == Lanes(3, 32, 2)
    assert lanes.steps == 33
    assert lanes.filled().sum(axis=1).tolist() == [33, 33, 32]
    assert [lanes.active(step) for step in (0, 31, 32)] == [3, 3, 2]


def bits_without_a_cache(opened, data):
    """Score every lane by itself, block by block, as one ordinary pass over each block."""
    vocabulary, context = opened.vocabulary, opened.model.shape.context
    tokens = vocabulary.encode(data.decode())
    number = min(32, max(1, len(tokens) // (4 * context)))
    lanes = [part.tolist() for part in np.array_split(tokens, number)]
    silent = [vocabulary.end_id, vocabulary.pad_id, vocabulary.mask_id]
    kept, total, plain = context // 2, 0.0, 0.0
    for lane in lanes:
        read = [vocabulary.end_id, *lane[:-1]]
        for start in range(0, len(lane), context - kept):
            if start and start + kept >= len(lane):
                break
            with torch.no_grad():
                logits = opened.model(torch.tensor([read[start : start + context]]))[0].double()
            asked = torch.arange(kept if start else 0, len(logits))
            wanted = torch.tensor(lane[start : start + context])[asked]
            plain -= logits.log_softmax(1)[asked, wanted].sum().item()
            logits[:, silent] = -math.inf
            total -= logits.log_softmax(1)[asked, wanted].sum().item()
    assert total < plain
    return total / math.log(2)


@pytest.mark.parametrize("size", [100, 700, 9001])
def test_the_bits_promised_are_those_of_ordinary_forward_passes(model, size):
    data = english(size)
    assert pack(model, data).ideal_bits == pytest.approx(
        bits_without_a_cache(model, data), rel=1e-3
    )


@pytest.mark.parametrize("size", [0, 1, 700, 9001])
def test_the_file_is_as_long_as_the_bits_promised(model, size):
    packed = pack(model, english(size))
    promised = packed.ideal_bits / 8
    assert promised * 0.998 <= len(packed.archive) <= promised * 1.002 + 64


def test_certainty_costs_nothing_and_ignorance_the_logarithm_of_the_choices():
    """After end-of-text all entries that spell bytes are equally likely; then one is certain."""
    certain = opened()
    with torch.no_grad():
        for weight in certain.model.model.embed_tokens.parameters():
            weight.zero_()
            weight[certain.vocabulary.encode("\x01")[0]] = 6.0
    data = b"\x01" * 4000
    packed = pack(certain, data)
    choices = len(certain.vocabulary) - 3  # end of text, pad and mask spell nothing
    assert packed.ideal_bits == pytest.approx(packed.lanes * math.log2(choices))
    assert packed.lanes == 32
    assert len(packed.archive) <= packed.ideal_bits / 8 + 64
    assert unpack(certain, packed.archive) == data


def test_a_model_that_is_certain_and_wrong_still_gives_it_back():
    wrong = opened()
    with torch.no_grad():
        wrong.model.model.embed_tokens.weight.mul_(300)
    packed = pack(wrong, english(700))
    assert math.isfinite(packed.ideal_bits)
    assert unpack(wrong, packed.archive) == english(700)


def test_weights_that_are_not_numbers_are_refused():
    broken = opened()
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="not numbers"):
        pack(broken, b"cat")


def test_a_table_of_rotation_that_came_out_wrong_is_computed_again(model):
    """The first sines of a process may be off, and no other process could read what they made."""
    data = english(700)
    odd = opened()
    odd.model.model.get_buffer("sine")[CONTEXT // 2] += 1e-2
    assert pack(odd, data).archive == pack(model, data).archive


def test_bfloat16_is_put_aside_for_the_while(model):
    other = opened()
    other.model.set_precision(torch.bfloat16)
    assert pack(other, english(300)).archive == pack(model, english(300)).archive
    assert other.model.precision == torch.bfloat16


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
    here = coder.maker_of(model.model, model.machine, Spelling(model.vocabulary, 320), 1)
    there = here._replace(device="cuda", processor=b"none", arithmetic=b"none")
    assert coder.differences(there, here) == [
        "made on cuda, this is cpu: give --machine.device cuda"
    ]
    assert coder.differences(here, here) == []


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


@pytest.mark.parametrize("silent", [0, 305])
def test_words_that_mean_an_entry_without_bytes_are_refused(model, silent):
    """The coder gives end-of-text, and what lies beyond the vocabulary, a last crumb of chance."""
    end_id, spells = model.vocabulary.end_id, Spelling(model.vocabulary, 305).spells
    with coder.settled(model.model):
        stepper = coder.Stepper(model.model, 1, spells)
        of_groups, of_entries = stepper.odds(stepper.read(np.array([end_id])))
    written = constriction.stream.queue.RangeEncoder()
    group, place = divmod(silent, stepper.width)
    written.encode(np.array([group], dtype=np.int32), stepper.family, of_groups)
    written.encode(np.array([place], dtype=np.int32), stepper.family, of_entries[[0], [group]])
    with pytest.raises(EvaluationError, match="nonsense at token 0"):
        coder.decode(model.model, written.get_compressed(), 1, end_id, spells)


def test_the_head_is_short_and_its_numbers_are_in_clear(model):
    packed = pack(model, english(9001))
    head, words = archive.read_archive(packed.archive)
    assert packed.header_bytes + 4 * len(words) == len(packed.archive)
    assert packed.header_bytes <= 54
    assert (head.tokens, head.maker.threads) == (packed.tokens, torch.get_num_threads())
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


# The whole program, in processes of its own.


def test_one_process_reads_what_another_has_written(shared, small_run, tmp_path):
    data = ("Once there was a cat who sat. " * 400).encode() + b"\xff<|endoftext|>\r\n"
    (tmp_path / "text").write_bytes(data)
    names = [str(tmp_path / name) for name in ("text", "made", "back")]
    done = shared.nextword("compress", small_run, names[0], "-o", names[1], "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert receipt["verified"]
    assert receipt["original_bytes"] == len(data)
    promised = receipt["ideal_bits"] / 8
    assert (tmp_path / "made").stat().st_size <= promised * 1.002 + 64
    threads = ["--machine.threads", str(torch.get_num_threads())]
    done = shared.nextword("decompress", small_run, names[1], "-o", names[2], *threads)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == data
    assert f"{len(data):,} bytes" in done.stdout
