import numpy as np
import pytest
import torch

from nextword.base.errors import EvaluationError
from nextword.prediction import evaluate as room
from nextword.prediction.evaluate import (
    Block,
    Evaluation,
    choose_documents,
    cut_document,
    evaluate,
    score_tokens,
)
from nextword.prediction.options import EvaluationSettings
from tests.model.test_transformer import scattered

LENGTHS = [1, 5, 23, 24, 25, 60, 3, 24]


class Texts:
    end_id = 0
    document_bytes = np.array(LENGTHS) * 3

    def __init__(self, lengths=LENGTHS):
        source = np.random.default_rng(0)
        self.documents = [np.append(source.integers(1, 97, length - 1), 0) for length in lengths]
        self.num_documents = len(lengths)

    def document(self, number):
        return self.documents[number]


@torch.inference_mode()
def by_hand(model, texts, context=24):
    """One block at a time, from the definition."""
    nats, count, first, five = 0.0, 0, 0, 0
    for document in texts.documents:
        whole = [0, *document.tolist()]
        for start in range(0, len(document), context):
            block = whole[start : start + context + 1]
            logits = model(torch.tensor([block[:-1]]))[0].double()
            for row, target in zip(logits, block[1:], strict=True):
                nats -= float(row.log_softmax(0)[target])
                order = row.argsort(descending=True).tolist()
                first += order[0] == target
                five += target in order[:5]
                count += 1
    return nats, count, first, five


@pytest.mark.parametrize("batch_tokens", [1, 30, 100, 100_000])
def test_it_equals_the_definition_whatever_the_batch_size(batch_tokens):
    model, texts = scattered(), Texts()
    found = evaluate(model, texts, EvaluationSettings(batch_tokens=batch_tokens))
    nats, count, first, five = by_hand(model, texts)
    assert found.tokens == count == sum(LENGTHS)
    assert found.nats_per_token == pytest.approx(nats / count, abs=1e-5)
    assert (found.first, found.among_five) == (first, five)
    assert found.num_bytes == 3 * sum(LENGTHS)
    assert sum(tokens for _, tokens in found.by_context.values()) == count
    assert sum(value for value, _ in found.by_context.values()) == pytest.approx(nats, rel=1e-5)


def test_losses_are_grouped_by_the_pieces_that_were_read():
    """A window that goes on reads its first piece again; end-of-text is none of a text's pieces."""
    model, texts = scattered(), Texts([2, 60])
    found = evaluate(model, texts, EvaluationSettings()).by_context
    counts = {upto: count for upto, (_, count) in found.items()}
    # Of 2 pieces: 0 and 1 read. Of 60, in windows of 24: 0 to 23, then 1 to 24, then 1 to 12.
    assert counts == {0: 2, 1: 4, 2: 3, 4: 6, 8: 12, 16: 20, 24: 15}
    with torch.inference_mode():
        losses = [-model(torch.tensor([[0]]))[0, -1].log_softmax(0)[text[0]]
                  for text in texts.documents]  # fmt: skip
    assert found[0][0] == pytest.approx(float(sum(losses)), abs=1e-4)


def test_precision_is_put_back_and_does_not_matter():
    model, texts = scattered(), Texts()
    exact = evaluate(model, texts, EvaluationSettings()).nats
    model.set_precision(torch.bfloat16)
    assert evaluate(model, texts, EvaluationSettings()).nats == exact
    assert model.precision == torch.bfloat16


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("length", [1, 23, 24, 25, 100])
def test_blocks_score_each_token_once(length, overlap):
    document = np.arange(1, length + 1)
    scored = []
    for block in cut_document(document, 0, 24, EvaluationSettings(overlap=overlap)):
        assert len(block.tokens) <= 25
        scored += block.tokens[1 + block.skipped :].tolist()
    assert scored == document.tolist()


def test_overlap_gives_more_context():
    blocks = list(cut_document(np.arange(1, 101), 0, 24, EvaluationSettings(overlap=0.5)))
    assert all(block.skipped >= 12 for block in blocks[1:])


def test_whole_documents_up_to_a_limit():
    found = evaluate(scattered(), Texts(), EvaluationSettings(), max_tokens=7)
    assert (found.documents, found.tokens) == (3, 29)


def test_bits_per_byte_are_withheld_with_the_reason():
    values = evaluate(scattered(), Texts(), EvaluationSettings(), withheld="because").as_dict()
    assert values["bits_per_byte"] is None
    assert values["bits_per_byte_withheld"] == "because"


def test_nothing_to_score_is_said():
    with pytest.raises(EvaluationError, match="no text to score"):
        evaluate(scattered(), Texts([]), EvaluationSettings())


def test_a_long_document_is_cut_where_a_part_is_enough_and_its_bytes_are_counted():
    model, texts = scattered(), Texts([5, 3000, 7])
    texts.document_bytes = np.array([15, 9000, 21])
    part = evaluate(
        model, texts, EvaluationSettings(), max_tokens=50, count_bytes=lambda ids: 3 * len(ids)
    )
    assert (part.tokens, part.documents, part.num_bytes) == (50, 2, 150)
    first = Texts([5, 3000, 7])
    first.documents = [first.documents[0], first.documents[1][:45]]
    nats, count, _, _ = by_hand(model, first)
    assert count == 50
    assert part.nats == pytest.approx(nats, rel=1e-5)
    unknown = evaluate(model, texts, EvaluationSettings(), max_tokens=50)
    assert unknown.num_bytes is None
    assert unknown.withheld


def test_every_figure_is_given_by_its_name():
    scores = Evaluation(
        nats=8 * np.log(4), tokens=8, documents=3, num_bytes=4, first=2, among_five=6,
        by_context={4: (3.0, 2), 0: (1.0, 4)}, reading={"left out": 1},
    )  # fmt: skip
    assert scores.as_dict() == {
        "nats_per_token": pytest.approx(np.log(4)),
        "eval_loss": pytest.approx(np.log(4)),
        "bits_per_token": pytest.approx(2.0),
        "perplexity": pytest.approx(4.0),
        "asked_for": "every token",
        "bits_per_byte": pytest.approx(4.0),
        "bits_per_byte_withheld": None,
        "top1_accuracy": 0.25,
        "top5_accuracy": 0.75,
        "tokens": 8,
        "bytes": 4,
        "documents": 3,
        "reading": {"left out": 1},
        "nats": scores.nats,
        "loss_by_context": {
            "0": {"nats_per_token": 0.25, "tokens": 4},
            "4": {"nats_per_token": 1.5, "tokens": 2},
        },
    }
    assert list(scores.as_dict()["loss_by_context"]) == ["0", "4"]
    hidden = Evaluation(nats=1.0, tokens=2, num_bytes=None, at_hidden=True, withheld="no").as_dict()
    assert hidden["asked_for"] == "hidden tokens"
    assert hidden["perplexity"] is hidden["bits_per_byte"] is hidden["bytes"] is None


@pytest.mark.parametrize("at_once", [1, 7, 14, 15, 1000])
def test_logits_are_held_a_few_rows_at_once(monkeypatch, at_once):
    monkeypatch.setattr(room, "LOGITS_AT_ONCE", at_once)
    source = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 4, generator=source) for rows in (5, 7))
    targets = torch.tensor([0, 6, 3, 3, 1])
    losses, ranks = score_tokens(hidden, weight, targets)
    logits = hidden @ weight.T
    torch.testing.assert_close(
        losses, torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    )
    order = logits.argsort(dim=1, descending=True)
    assert ranks.tolist() == [order[row].tolist().index(one) for row, one in enumerate(targets)]
    nothing = score_tokens(hidden[:0], weight, targets[:0])
    assert [len(one) for one in nothing] == [0, 0]


def test_padded_batches_hold_at_most_what_was_asked_for():
    blocks = [Block(np.arange(size), 0, 0) for size in (3, 9, 1, 10, 5, 5, 2)]
    batches = list(room._by_length(blocks, 20))
    sizes = [[len(block.tokens) for block in batch] for batch in batches]
    assert sizes == [[10, 9], [5, 5, 3, 2], [1]]
    assert list(room._by_length([], 20)) == []
    assert [len(batch) for batch in room._by_length(blocks, 1)] == [1] * 7


def test_documents_are_chosen_until_there_are_enough():
    texts = Texts([5, 5, 4000, 5])
    assert choose_documents(texts, None) == (4, None)
    assert choose_documents(texts, 0) == (0, None)
    assert choose_documents(texts, 5) == (1, None)
    assert choose_documents(texts, 6) == (2, None)
    assert choose_documents(texts, 11) == (3, 1)
    most = 2 * 6 + room.LONG_DOCUMENT
    assert choose_documents(Texts([most, 5]), 6) == (1, None)
    assert choose_documents(Texts([most + 1, 5]), 6) == (1, 6)


@pytest.mark.parametrize(
    ("context", "ranges"),
    [(1, [0, 1]), (2, [0, 1, 2]), (4, [0, 1, 2, 4]), (6, [0, 1, 2, 4, 6]), (9, [0, 1, 2, 4, 8, 9])],
)
def test_ranges_of_context_end_with_the_context(context, ranges):
    assert room._ranges(context) == ranges


@torch.inference_mode()
def test_losses_are_grouped_by_how_many_pieces_were_read():
    model, texts = scattered(), Texts([30, 3])
    found = evaluate(model, texts, EvaluationSettings(batch_tokens=40)).by_context
    expected = {}
    for document in texts.documents:
        whole = [0, *document.tolist()]
        for start in range(0, len(document), 24):
            block = whole[start : start + 25]
            logits = model(torch.tensor([block[:-1]]))[0].double()
            for place, target in enumerate(block[1:]):
                read = place + (start > 0)  # in a later block token 0 is a piece of the text
                upto = next(end for end in (0, 1, 2, 4, 8, 16, 24) if read <= end)
                nats, count = expected.get(upto, (0.0, 0))
                loss = -float(logits[place].log_softmax(0)[target])
                expected[upto] = (nats + loss, count + 1)
    assert found.keys() == expected.keys()
    for upto, (nats, count) in expected.items():
        assert found[upto] == (pytest.approx(nats, abs=1e-4), count)
