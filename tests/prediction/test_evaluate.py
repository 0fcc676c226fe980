import numpy as np
import pytest
import torch

from nextword.base.errors import EvaluationError
from nextword.prediction.evaluate import cut_document, evaluate
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
