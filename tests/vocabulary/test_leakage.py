import sys

import numpy as np
import pytest

from nextword.vocabulary import leakage, shingles
from nextword.vocabulary.deduplication import remove_ranges
from nextword.vocabulary.leakage import exact_repeats, find_leaks, jaccard
from nextword.vocabulary.shards import ShardWriter, TokenStream
from nextword.vocabulary.shingles import Scale, cut_units, hash_grams

VOCAB = 5000
END = 0
SCALE = Scale.of(4.0)


@pytest.fixture
def generator():
    return np.random.default_rng(1)


def words(generator, count):
    return generator.integers(1, VOCAB, count)


def edit(generator, document, share):
    """Change exactly this share of the tokens."""
    changed = document.copy()
    places = generator.choice(len(document), round(share * len(document)), replace=False)
    changed[places] = words(generator, len(places))
    return changed


def shard(folder, documents, side="train", shard_tokens=None):
    """Write documents; with `shard_tokens`, cut shards there, also inside a document."""
    tokens = [int(token) for document in documents for token in [*document, END]]
    ends = np.cumsum([len(document) + 1 for document in documents])
    files = []
    size = shard_tokens or max(len(tokens), 1)
    for number, start in enumerate(range(0, len(tokens), size)):
        file = folder / f"{side}-{number:05d}.ds"
        np.array(tokens[start : start + size], dtype="<u2").tofile(file)
        inside = ends[(ends > start) & (ends <= start + size)] - start
        inside.astype("<u8").tofile(f"{file}.index")
        (inside * 4).astype("<u8").tofile(f"{file}.bytes")
        files.append(file)
    return TokenStream(files, VOCAB, END)


def grams(document, width=SCALE.shingle):
    document = [int(token) for token in document]
    return {tuple(document[at : at + width]) for at in range(len(document) - width + 1)}


def similarity(first, second):
    first, second = grams(first), grams(second)
    return len(first & second) / len(first | second)


def leaked_documents(leaks, stream):
    """Return the numbers of the hold-out documents of which a unit leaked."""
    starts = leaks.holdout_ranges
    found = set()
    for start, stop in starts:
        first = np.searchsorted(stream.document_ends, start, side="right")
        last = np.searchsorted(stream.document_ends, stop, side="left")
        found.update(range(first, last + 1))
    return found


@pytest.mark.parametrize("share", [0.0, 0.005, 0.01, 0.02, 0.05, 0.1])
def test_planted_copies_are_found_and_only_those(tmp_path, generator, share):
    holdout = [words(generator, generator.integers(60, 2000)) for _ in range(150)]
    copies = [edit(generator, document, share) for document in holdout[:100]]
    others = [words(generator, generator.integers(60, 6000)) for _ in range(100)]
    alike = [similarity(*pair) for pair in zip(holdout, copies, strict=False)]
    stream = shard(tmp_path, holdout, "holdout")
    leaks = find_leaks(shard(tmp_path, others + copies), stream, 4.0)
    found = leaked_documents(leaks, stream)
    near = [number for number, value in enumerate(alike) if value >= 0.8]
    assert len(near) >= {0.02: 30, 0.05: 0, 0.1: 0}.get(share, 95)
    assert len(found & set(near)) >= 0.95 * len(near)
    assert not found & set(range(100, 150))
    if share == 0.1:
        assert not found


def test_a_sentence_inserted_at_the_front_shifts_nothing(tmp_path, generator):
    holdout = [words(generator, 12_000) for _ in range(10)]
    copies = [np.concatenate([words(generator, 25), document]) for document in holdout]
    stream = shard(tmp_path, holdout, "holdout")
    leaks = find_leaks(shard(tmp_path, copies), stream, 4.0)
    assert leaks.share > 0.95


@pytest.mark.parametrize("length", [2047, 2100, 4000])
def test_a_passage_is_found_inside_a_long_document(tmp_path, generator, length):
    passages = [words(generator, length) for _ in range(20)]
    hosts = [
        np.concatenate([words(generator, 7000), passage, words(generator, 5000)])
        for passage in passages
    ]
    stream = shard(tmp_path, passages, "holdout")
    leaks = find_leaks(shard(tmp_path, hosts), stream, 4.0)
    assert len(leaked_documents(leaks, stream)) >= 0.95 * 20
    stream = shard(tmp_path, hosts, "holdout")
    leaks = find_leaks(shard(tmp_path, [words(generator, 300), *hosts[:5]]), stream, 4.0)
    assert leaked_documents(leaks, stream) == set(range(5))


def test_a_copy_that_grew_past_the_length_that_is_cut_is_found(tmp_path, generator):
    holdout = [words(generator, 2040) for _ in range(20)]
    copies = [np.concatenate([document, words(generator, 30)]) for document in holdout]
    for one, other in ((holdout, copies), (copies, holdout)):
        stream = shard(tmp_path, one, "holdout")
        leaks = find_leaks(shard(tmp_path, other), stream, 4.0)
        assert len(leaked_documents(leaks, stream)) >= 19


def test_unrelated_documents_are_not_found(tmp_path, generator):
    documents = [words(generator, generator.integers(5, 5000)) for _ in range(200)]
    leaks = find_leaks(shard(tmp_path, documents[:150]), shard(tmp_path, documents[150:], "h"), 4.0)
    assert leaks.holdout_units > 50
    assert leaks.train_units > 150
    assert leaks.leaked_units == leaks.leaked_tokens == leaks.share == 0
    assert leaks.examples == []
    assert leaks.train_ranges.shape == (0, 2)


def test_what_is_reported_is_the_exact_similarity_of_the_quoted_tokens(tmp_path, generator):
    holdout = [words(generator, length) for length in (3000, 900, 700, 500, 300)]
    copies = [edit(generator, document, 0.01) for document in holdout]
    train = shard(tmp_path, [words(generator, 4000), *copies])
    stream = shard(tmp_path, holdout, "holdout")
    leaks = find_leaks(train, stream, 4.0)
    assert len(leaks.examples) == 3
    for example in leaks.examples:
        quoted = [
            [token for token in source.read(*where) if token != END]
            for source, where in ((stream, example.holdout), (train, example.train))
        ]
        assert example.similarity == similarity(*quoted)
        assert 0.7 <= example.similarity < 1


def test_the_share_counts_each_leaked_token_once(tmp_path, generator):
    documents = [words(generator, 1000) for _ in range(4)]
    stream = shard(tmp_path, documents, "holdout")
    train = shard(tmp_path, [words(generator, 500), documents[2], words(generator, 19)])
    leaks = find_leaks(train, stream, 4.0)
    assert (leaks.leaked_tokens, leaks.holdout_tokens, leaks.share) == (1001, 4004, 0.25)
    assert leaks.holdout_ranges.tolist() == [[2002, 3003]]
    assert leaks.train_ranges.tolist() == [[501, 1502]]
    assert not leaks.estimated
    assert leaks.train_units == 2  # 19 tokens are too short to be compared


def test_texts_that_are_too_uniform_do_not_count(tmp_path):
    blank = [np.full(400, 7), np.array([1, 2] * 300)]
    leaks = find_leaks(shard(tmp_path, blank), shard(tmp_path, blank, "holdout"), 4.0)
    assert leaks.leaked_units == 0
    assert jaccard(np.arange(7, dtype=np.uint64), np.arange(7, dtype=np.uint64)) == 0
    assert jaccard(np.arange(8, dtype=np.uint64), np.arange(4, 12, dtype=np.uint64)) == 4 / 12


def test_of_a_hold_out_beyond_the_limit_a_sample_is_compared(tmp_path, generator, monkeypatch):
    monkeypatch.setattr(shingles, "BLOCK_TOKENS", 1000)  # many blocks, many times thinned out
    documents = [words(generator, 100) for _ in range(1200)]
    stream = shard(tmp_path, documents, "holdout")
    train = shard(tmp_path, documents[:600])
    whole = find_leaks(train, stream, 4.0)
    assert (whole.share, whole.estimated) == (0.5, False)
    most = whole.holdout_units
    assert not find_leaks(train, stream, 4.0, most_units=most).estimated
    assert find_leaks(train, stream, 4.0, most_units=most - 1).estimated
    part = find_leaks(train, stream, 4.0, most_units=150)
    assert part.estimated
    assert part.holdout_units == 150
    assert abs(part.share - 0.5) < 0.15
    again = find_leaks(train, stream, 4.0, most_units=150)
    assert np.array_equal(part.train_ranges, again.train_ranges)
    other = find_leaks(train, stream, 4.0, seed=1, most_units=150)
    assert not np.array_equal(part.train_ranges, other.train_ranges)


def test_where_all_texts_are_alike_the_pairs_looked_at_are_bounded(
    tmp_path, generator, monkeypatch
):
    monkeypatch.setattr(leakage, "MOST_PAIRS", 500)
    template = words(generator, 300)
    documents = [edit(generator, template, 0.005) for _ in range(400)]
    search = []
    original = leakage._Search._meet

    def meet(self, signatures):
        pairs = original(self, signatures)
        search.append(len(pairs[0]))
        return pairs

    monkeypatch.setattr(leakage._Search, "_meet", meet)
    stream = shard(tmp_path, documents[:200], "holdout")
    leaks = find_leaks(shard(tmp_path, documents[200:]), stream, 4.0)
    assert leaks.leaked_units > 0
    assert 0 < max(search) <= 200 * leakage.BANDS


def test_neither_shards_nor_blocks_change_what_is_found(tmp_path, generator, monkeypatch):
    holdout = [words(generator, generator.integers(60, 9000)) for _ in range(20)]
    copies = [edit(generator, document, 0.005) for document in holdout[:12]]
    train = [*copies, *(words(generator, 3000) for _ in range(10))]
    (tmp_path / "other").mkdir()
    one = find_leaks(shard(tmp_path, train), shard(tmp_path, holdout, "holdout"), 4.0)
    other_train = shard(tmp_path / "other", train, "train", 1234)
    other_holdout = shard(tmp_path / "other", holdout, "holdout", 777)
    monkeypatch.setattr(shingles, "BLOCK_TOKENS", 1)  # as small as the longest unit allows
    other = find_leaks(other_train, other_holdout, 4.0)
    assert one.leaked_units == other.leaked_units > 12
    assert np.array_equal(one.train_ranges, other.train_ranges)
    assert np.array_equal(one.holdout_ranges, other.holdout_ranges)


@pytest.mark.parametrize("whole_upto", [0, 2048])
def test_units_cover_every_document_and_cross_none(tmp_path, generator, monkeypatch, whole_upto):
    lengths = [*generator.integers(20, 12_000, 30), 2047, 2048, 2049, 100_000]
    stream = shard(tmp_path, [words(generator, length) for length in lengths])
    monkeypatch.setattr(shingles, "BLOCK_TOKENS", 1 << 20)
    (at_once,) = cut_units(stream, SCALE, whole_upto)
    monkeypatch.setattr(shingles, "BLOCK_TOKENS", 1)
    blocks = list(cut_units(stream, SCALE, whole_upto))
    ranges = np.concatenate([block.ranges for block in blocks])
    ranges = ranges[np.argsort(ranges[:, 0])]
    assert np.array_equal(ranges, at_once.ranges[np.argsort(at_once.ranges[:, 0])])
    assert ranges[0, 0] == 0
    assert ranges[-1, 1] == len(stream)
    assert np.array_equal(ranges[1:, 0], ranges[:-1, 1])
    assert set(stream.document_ends) <= set(ranges[:, 1])
    sizes = ranges[:, 1] - ranges[:, 0]
    assert sizes.max() <= SCALE.most
    assert 300 < sizes[sizes >= SCALE.least].mean() < 1500
    block = blocks[-1]
    start, stop = block.ranges[-1]
    expected = hash_grams(stream.read(start, stop - 1), SCALE.shingle)
    assert np.array_equal(block.shingles_of(len(block.ranges) - 1), expected)


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7, 24])
def test_shingles_are_equal_where_the_tokens_are(generator, width):
    tokens = generator.integers(0, 3, 300)
    hashes = hash_grams(tokens, width)
    runs = [tuple(tokens[at : at + width]) for at in range(len(tokens) - width + 1)]
    assert len(hashes) == len(runs)
    assert len(set(hashes.tolist())) == len(set(runs)) == len(set(zip(runs, hashes, strict=True)))
    assert len(hash_grams(tokens[: width - 1], width)) == 0
    assert not np.array_equal(hash_grams(tokens, width, seed=1), hashes)


def test_lengths_follow_the_bytes_a_token_spells():
    assert Scale.of(4.0) == Scale(6, 3, 20, 64, 512, 2048)
    assert Scale.of(1.0) == Scale(24, 12, 80, 256, 2048, 8192)
    for size in (0.5, 20.0, 500.0):
        scale = Scale.of(size)
        assert 3 <= scale.shingle < scale.shortest <= scale.least < scale.mean <= scale.most


def test_streams_without_text_leak_nothing(tmp_path):
    for documents in ([[]], [[], [], [1, 2]]):
        leaks = find_leaks(shard(tmp_path, documents), shard(tmp_path, documents, "h"), 4.0)
        assert (leaks.holdout_units, leaks.train_units, leaks.share) == (0, 0, 0)


def test_without_the_package_the_answer_is_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    stream = shard(tmp_path, [[1, 2, 3]])
    assert find_leaks(stream, stream, 4.0) is None


@pytest.mark.parametrize("block", [1, 7, 1 << 16])
def test_documents_that_repeat_an_earlier_one_exactly(tmp_path, monkeypatch, block):
    monkeypatch.setattr(leakage, "BLOCK_TOKENS", block)
    a, b, c = [1, 2, 3] * 10, [1, 2, 3], [1, 2, 4]
    stream = shard(tmp_path, [a, b, b, c, a, b], "train", 11)
    assert exact_repeats(stream).tolist() == [[35, 39], [43, 78]]
    assert exact_repeats(stream, most=1).tolist() == [[43, 74]]


def test_no_documents_repeat_nothing(tmp_path):
    writer = ShardWriter(tmp_path / "empty.ds", VOCAB)
    writer.close()
    assert exact_repeats(TokenStream([writer.file], VOCAB, END)).shape == (0, 2)
    assert find_leaks(*2 * [TokenStream([writer.file], VOCAB, END)], 4.0).share == 0


def test_what_was_dropped_is_not_found_again(tmp_path, generator):
    holdout = [words(generator, generator.integers(60, 9000)) for _ in range(30)]
    copies = [edit(generator, document, 0.005) for document in holdout[:20]]
    others = [words(generator, generator.integers(60, 9000)) for _ in range(20)]
    hosts = [np.concatenate([words(generator, 3000), holdout[number]]) for number in range(20, 25)]
    stream = shard(tmp_path, holdout, "holdout")
    train = shard(tmp_path, [*others, *copies, *hosts], "train", 20_000)
    files = sorted(tmp_path.glob("train-*.ds"))
    shares = []
    for _ in range(3):  # what stood beside a removed passage is cut anew, and may be found then
        leaks = find_leaks(train, stream, 4.0)
        shares.append(leaks.share)
        remove_ranges(files, VOCAB, leaks.train_ranges, lambda ids: 4 * len(ids))
        train = TokenStream(files, VOCAB, END)
    assert shares[0] > 0.5
    assert shares[1] < 0.02
    assert shares[2] == 0
    for number, document in enumerate(others):
        assert train.document(number).tolist() == [*document, END]
