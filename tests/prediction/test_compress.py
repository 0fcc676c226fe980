import dataclasses
import json
import math
import os
import random

import constriction
import numpy as np
import pytest
import torch
from tokenizers import normalizers

from nextword.base.errors import EvaluationError, ModelError, VocabularyError
from nextword.machine.device import Machine
from nextword.model.shape import Shape
from nextword.prediction import coder
from nextword.prediction.archive import compress, pack, unpack
from nextword.prediction.coder import Lanes, Spelling
from nextword.prediction.loading import Opened
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


pytestmark = pytest.mark.usefixtures("one_thread")


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
    with pytest.raises(VocabularyError, match="of the 256 bytes"):
        compress(opened(words=vocabulary(kind)), tmp_path / "in", tmp_path / "out")
    assert os.listdir(tmp_path) == ["in"]


def test_lanes_are_contiguous_and_differ_by_one_token():
    shape = dataclasses.replace(SHAPE, context=CONTEXT)
    assert Lanes.of(4 * CONTEXT * 2 - 1, shape).number == 1
    assert Lanes.of(0, shape) == Lanes(1, 0, 0)
    assert Lanes.of(10**6, shape) == Lanes(32, 31250, 0)
    lanes = Lanes.of(4 * CONTEXT * 3 + 2, shape)
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


def test_a_long_context_and_a_large_network_take_bounded_memory(monkeypatch):
    large = dataclasses.replace(
        SHAPE,
        context=40_960,
        num_hidden_layers=28,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=128,
    )
    lanes = Lanes.of(10**9, large)
    assert lanes.number == 4
    per_position = 2 * 28 * 8 * 128 * 4
    assert lanes.number * 2048 * per_position <= coder.MOST_CACHE_BYTES

    monkeypatch.setattr(coder, "MOST_CONTEXT", 12)
    model, data = opened(context=64), english(700)
    packed = pack(model, data)
    assert packed.lanes > 1
    assert unpack(model, packed.archive) == data
    monkeypatch.setattr(coder, "MOST_CONTEXT", 1 << 20)
    assert pack(model, data).lanes == 1


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


# The whole program, in processes of its own.


def test_one_process_reads_what_another_has_written(shared, small_run, tmp_path):
    data = ("Once there was a cat who sat. " * 100).encode() + b"\xff<|endoftext|>\r\n"
    (tmp_path / "text").write_bytes(data)
    names = [str(tmp_path / name) for name in ("text", "made", "back")]
    done = shared.process(
        "compress", small_run, names[0], "-o", names[1], "--json", "--threads", "1"
    )
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert receipt["verified"]
    assert receipt["original_bytes"] == len(data)
    promised = receipt["ideal_bits"] / 8
    assert (tmp_path / "made").stat().st_size <= promised * 1.002 + 64
    threads = ["--machine.threads", "1"]
    done = shared.process("decompress", small_run, names[1], "-o", names[2], *threads)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == data
    assert f"{len(data):,} bytes" in done.stdout
