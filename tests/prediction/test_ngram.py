import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import EvaluationError
from nextword.prediction import ngram
from nextword.prediction.discounts import estimate_discounts
from nextword.prediction.ngram import KneserNey

END = 0


class FromTheDefinition:
    """Sets and dictionaries of tuples, one token at a time."""

    def __init__(self, order, vocab_size, documents):
        self.order, self.vocab_size = order, vocab_size
        seen, before = Counter(), defaultdict(set)
        for document in documents:
            line = (END, *document.tolist())
            for last in range(1, len(line)):
                for first in range(max(0, last - order + 1), last + 1):
                    gram = line[first : last + 1]
                    seen[gram] += 1
                    if first:
                        before[gram].add(line[first - 1])
        self.counts = {
            gram: count
            if len(gram) == order or (len(gram) > 1 and gram[0] == END)
            else len(before[gram])
            for gram, count in seen.items()
        }
        self.discounts = {
            length: self.three([c for gram, c in self.counts.items() if len(gram) == length])
            for length in range(1, order + 1)
        }
        self.followers = defaultdict(dict)
        for gram, count in self.counts.items():
            self.followers[gram[:-1]][gram[-1]] = count

    @staticmethod
    def three(counts):
        n = Counter(counts)
        if n[1] == 0 or n[2] == 0:
            return [0, 0.75, 0.75, 0.75]
        y = n[1] / (n[1] + 2 * n[2])
        if n[3] == 0 or n[4] == 0:
            return [0, y, y, y]
        three = [0] + [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        return three if min(three[1:]) > 0 else [0, y, y, y]

    def probability(self, context, word):
        context = tuple(context[max(0, len(context) - self.order + 1) :])
        below = self.probability(context[1:], word) if context else 1 / self.vocab_size
        if not (following := self.followers.get(context)):
            return below
        discounts = self.discounts[len(context) + 1]
        total = sum(following.values())
        mass = sum(discounts[min(count, 3)] for count in following.values())
        count = following.get(word, 0)
        return (count - discounts[min(count, 3)] + mass * below) / total

    def nats(self, documents):
        return [
            -math.log(self.probability((END, *document[:place].tolist()), int(document[place])))
            for document in documents
            for place in range(len(document))
        ]


def corpus(seed, documents, longest, vocab_size):
    """Documents of a small Markov chain, so that n-grams come back; some hold only their end."""
    source = np.random.default_rng(seed)
    chain = source.dirichlet(np.full(vocab_size - 1, 0.4), size=vocab_size)
    made = []
    for _ in range(documents):
        line = [END]
        for _ in range(source.integers(0, longest)):
            line.append(1 + int(source.choice(vocab_size - 1, p=chain[line[-1]])))
        made.append(np.array([*line[1:], END]))
    return made


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("seed", "vocab_size"), [(0, 5), (1, 12), (2, 40)])
def test_it_equals_the_definition_token_by_token(order, seed, vocab_size):
    documents = corpus(seed, 60, 30, vocab_size)
    learnt, asked = documents[:40], documents[40:]
    model = KneserNey(order, vocab_size, END).learn(learnt)
    wanted = FromTheDefinition(order, vocab_size, learnt)
    assert model.tokens == sum(map(len, learnt))
    for level, discounts in enumerate(model.discounts, start=1):
        assert discounts == pytest.approx(wanted.discounts[level], abs=1e-12)
    for texts in (asked, learnt):
        np.testing.assert_allclose(model.nats(texts), wanted.nats(texts), rtol=1e-10)


def test_the_corpora_reach_every_kind_of_discount():
    found = set()
    for seed, vocab_size in [(0, 5), (1, 12), (2, 40)]:
        learnt = corpus(seed, 60, 30, vocab_size)[:40]
        for order in (1, 2, 3, 5):
            for discounts in KneserNey(order, vocab_size, END).learn(learnt).discounts:
                found.add((len(set(discounts[1:].tolist())), discounts[1] == 0.75))
    assert {(3, False), (1, False), (1, True)} <= found


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_it_equals_the_definition_whatever_the_text(bodies, order, held_out):
    """Also where end-of-text stands inside a document, or the text is a few tokens."""
    documents = [np.array([*body, END]) for body in bodies]
    learnt = documents[held_out:]
    model = KneserNey(order, 4, END).learn(learnt)
    wanted = FromTheDefinition(order, 4, learnt).nats(documents)
    np.testing.assert_allclose(model.nats(documents), wanted, rtol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_a_distribution_sums_to_one_and_is_nowhere_zero(order):
    learnt = corpus(3, 30, 25, 15)
    model = KneserNey(order, 17, END).learn(learnt)  # 15 and 16 are never seen
    source = np.random.default_rng(4)
    contexts = [source.integers(0, 17, length).tolist() for length in range(8) for _ in range(20)]
    contexts += [document[:-1].tolist() for document in learnt]
    contexts += [[END, *document[:3].tolist()] for document in learnt]
    for context in contexts:
        found = model.distribution(context)
        assert found.shape == (17,)
        assert found.min() > 0
        assert abs(found.sum() - 1) < 1e-9


@pytest.mark.parametrize("order", [1, 2, 4])
def test_scores_are_the_distributions_logarithms(order):
    documents = corpus(5, 12, 20, 9)
    model = KneserNey(order, 9, END).learn(documents[:8])
    wanted = [
        -math.log(model.distribution([END, *document[:place].tolist()])[document[place]])
        for document in documents
        for place in range(len(document))
    ]
    np.testing.assert_allclose(model.nats(documents), wanted, rtol=1e-12)


def test_only_the_last_tokens_of_a_context_count():
    model = KneserNey(3, 9, END).learn(corpus(6, 12, 20, 9))
    for first, second in itertools.product(range(9), repeat=2):
        short = model.distribution([first, second])
        assert (short == model.distribution([7, 1, first, second])).all()
    assert not np.allclose(short, model.distribution([second]))


def test_order_one_is_its_closed_form():
    """Seen once: 0 to 3; twice: 4 and 5; three times: 6; four times: 7; never: 8 and 9."""
    model = KneserNey(1, 10, END).learn([np.array([1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, END])])
    assert model.discounts[0].tolist() == [0, 0.5, 1.25, 1.0]  # n1 to n4 are 4, 2, 1, 1; Y = 1/2
    left = (0.5 * 4 + 1.25 * 2 + 1.0 * 2) / (15 * 10)
    wanted = [0.5 / 15] * 4 + [0.75 / 15] * 2 + [2 / 15, 3 / 15, 0, 0]
    np.testing.assert_allclose(model.distribution([]), np.array(wanted) + left, rtol=1e-12)


def test_two_sentences_by_hand():
    """1 2 end, 1 3 end.

    Single tokens follow 1, 1, 1 and 2 (end-of-text) different ones: D = 3/(3+2·1) = 3/5, backoff
    4·0.6/5 = 0.48. Pairs occur 2 (end 1), 1, 1, 1, 1 times: D = 4/(4+2·1) = 2/3.
    """
    model = KneserNey(2, 4, END).learn([np.array([1, 2, END]), np.array([1, 3, END])])
    np.testing.assert_allclose(model.distribution([]), [0.4, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(model.distribution([1]), [4 / 15, 2 / 15, 0.3, 0.3])
    np.testing.assert_allclose(model.distribution([2]), [0.6, 2 / 15, 2 / 15, 2 / 15])
    np.testing.assert_allclose(model.distribution([END])[1], 11 / 15)
    found = model.nats([np.array([1, 2, END])])
    np.testing.assert_allclose(found, -np.log([11 / 15, 0.3, 0.6]))


@pytest.mark.parametrize(
    ("counts_of_counts", "wanted"),
    [
        ([4, 2, 1, 1], [0.5, 1.25, 1.0]),
        ([0, 5, 5, 5], [0.75] * 3),  # none seen once
        ([5, 0, 5, 5], [0.75] * 3),  # would take all of what was seen once
        ([2, 1, 1, 0], [0.5] * 3),
        ([2, 1, 0, 1], [0.5] * 3),
        ([4, 1, 1, 1], [2 / 3] * 3),  # D2 = 0: nothing would be left for what is new
        ([2, 1, 9, 1], [0.5] * 3),  # D2 < 0
        ([20, 10, 10, 80], [0.5] * 3),  # D3 < 0
        ([0, 0, 0, 0], [0.75] * 3),
    ],
)
def test_discounts_stay_between_nothing_and_the_count(counts_of_counts, wanted):
    counts = np.repeat([1, 2, 3, 4, 0, 9], [*counts_of_counts, 3, 3])
    assert estimate_discounts(counts) == pytest.approx([0, *wanted])


@pytest.mark.parametrize("limit", [0, 1, 5, 6, 7, 12, 13, 100])
def test_it_learns_from_no_more_than_it_may(limit):
    documents = [np.array([1, 2, 3, 4, 5, END]), np.array([2, 3, 2, 3, 1, END])]
    asked = []

    def read():
        for document in documents:
            asked.append(len(document))
            yield document

    model = KneserNey(3, 6, END).learn(read(), limit)
    assert model.tokens == min(limit, 12)
    assert sum(asked) < limit + 6  # no document after the one that reaches the limit
    cut = [documents[0][:limit], documents[1][: max(limit - 6, 0)]]
    wanted = FromTheDefinition(3, 6, [part for part in cut if len(part)])
    np.testing.assert_allclose(model.nats(documents), wanted.nats(documents), rtol=1e-10)


def test_four_million_is_the_default_limit():
    documents = (np.full(1_000_000, 1) for _ in range(9))
    assert KneserNey(1, 2, END).learn(documents).tokens == 4_000_000


def test_a_document_does_not_read_the_one_before(monkeypatch):
    documents = corpus(7, 20, 20, 9)
    model = KneserNey(4, 9, END).learn(documents)
    whole = model.nats(documents)
    one_by_one = np.concatenate([model.nats([document]) for document in documents])
    assert (whole == one_by_one).all()
    monkeypatch.setattr(ngram, "SCORED_AT_ONCE", 13)
    assert (whole == model.nats(iter(documents))).all()
    assert (whole == model.nats([document.astype(np.uint16) for document in documents])).all()


def test_learning_again_forgets():
    documents = corpus(8, 20, 20, 9)
    model = KneserNey(3, 9, END).learn(documents[:10]).learn(documents[10:])
    fresh = KneserNey(3, 9, END).learn(documents[10:])
    assert model.tokens == fresh.tokens
    assert (model.nats(documents) == fresh.nats(documents)).all()


def test_nothing_learnt_is_the_uniform_distribution():
    for model in (KneserNey(4, 8, END), KneserNey(4, 8, END).learn([np.empty(0, dtype=np.int64)])):
        assert model.tokens == 0
        np.testing.assert_allclose(model.distribution([END, 3]), 1 / 8)
        np.testing.assert_allclose(model.nats([np.array([3, END])]), math.log(8))
        assert len(model.nats([])) == 0


def test_large_vocabularies_do_not_run_over():
    """The last token of the largest vocabulary, whose keys are the largest there are."""
    size = 1 << 18
    source = np.random.default_rng(9)
    documents = [np.append(size - 1 - source.integers(0, 4, 12), END) for _ in range(30)]
    small = [np.where(document, size - document, 0) for document in documents]
    model = KneserNey(5, size, END).learn(documents)
    wanted = FromTheDefinition(5, size, small)
    np.testing.assert_allclose(model.nats(documents), wanted.nats(small), rtol=1e-10)


def test_what_is_not_of_the_vocabulary_is_refused():
    model = KneserNey(2, 5, END)
    for wrong in (-1, 5):
        text = [np.array([1, wrong, END])]
        with pytest.raises(EvaluationError, match=f"token {wrong} is not among 5"):
            model.learn(text)
        with pytest.raises(EvaluationError, match=f"token {wrong}"):
            model.nats(text)
        with pytest.raises(EvaluationError, match=f"token {wrong}"):
            model.distribution([wrong])
        with pytest.raises(EvaluationError, match="end-of-text"):
            KneserNey(2, 5, wrong)
    with pytest.raises(EvaluationError, match="order 0"):
        KneserNey(0, 5, END)
    with pytest.raises(EvaluationError, match="too many"):
        model.learn([], 1 << 62)
