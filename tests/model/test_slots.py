"""Many texts in slots: the network's own logits, and the same bits whoever is beside."""

import pytest
import torch

from nextword.base.errors import ModelError
from nextword.model.initialize import initialize
from nextword.model.pages import PAGE
from nextword.model.shape import Shape
from nextword.model.slots import BLOCK, Slots
from nextword.model.transformer import Transformer

SHAPES = {
    "plain": {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    "grouped": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24},
    "as Llama": {
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 16,
        "qk_norm": False,
    },
    "untied": {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "tie_word_embeddings": False,
    },
}


def network(name="grouped", context=200):
    shape = Shape(
        vocab_size=101, hidden_size=48, num_hidden_layers=3, intermediate_size=88,
        context=context, **SHAPES[name],
    )  # fmt: skip
    model = Transformer(shape)
    initialize(model, 0)
    return model.eval()


def ids_of(rows, length, seed=1):
    source = torch.Generator().manual_seed(seed)
    return torch.randint(101, (rows, length), generator=source)


@pytest.mark.parametrize("name", SHAPES)
def test_texts_of_all_lengths_get_the_logits_of_the_network(name):
    model = network(name)
    slots, ids = Slots(model, 7), ids_of(7, 200)
    lengths = [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 130, 199]
    for slot, length in enumerate(lengths):
        for start in range(0, length, BLOCK):
            part = ids[slot, start : min(start + BLOCK, length)].tolist()
            hidden = slots.read(slot, part, start)
        with torch.inference_mode():
            there = model(ids[slot : slot + 1, :length])[0, -1]
        assert torch.allclose(slots.logits(hidden[-1:])[0], there, atol=1e-5)
    following = [int(ids[slot, length]) for slot, length in enumerate(lengths)]
    found = slots.step(range(7), following, lengths)
    for slot, length in enumerate(lengths):
        with torch.inference_mode():
            there = model(ids[slot : slot + 1, : length + 1])[0, -1]
        assert torch.allclose(found[slot], there, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_is_the_same_bit_for_bit_whoever_is_beside(name):
    model = network(name)
    slots, ids = Slots(model, 20), ids_of(20, 200)
    lengths = [1 + (37 * slot) % 190 for slot in range(20)]
    for slot, length in enumerate(lengths):
        for start in range(0, length, BLOCK):
            slots.read(slot, ids[slot, start : min(start + BLOCK, length)].tolist(), start)
    following = [int(ids[slot, length]) for slot, length in enumerate(lengths)]
    whole = slots.step(range(20), following, lengths)
    for chosen in ([3], [0, 19], [2, 3, 5], [4, 9, 10, 11, 12, 13], list(range(0, 20, 2))):
        part = slots.step(
            chosen, [following[slot] for slot in chosen], [lengths[slot] for slot in chosen]
        )
        assert torch.equal(part, whole[chosen])


def test_what_a_slot_held_before_is_not_seen():
    model = network()
    slots, ids = Slots(model, 4), ids_of(2, 150)
    for start in range(0, 128, BLOCK):
        slots.read(1, ids[0, start : start + BLOCK].tolist(), start)
    slots.read(1, ids[1, :9].tolist(), 0)
    after = slots.step([1], [7], [9])
    fresh = Slots(model, 4)
    fresh.read(1, ids[1, :9].tolist(), 0)
    assert torch.equal(fresh.step([1], [7], [9]), after)


def test_a_copy_goes_on_as_its_source():
    model = network()
    slots, ids = Slots(model, 4), ids_of(1, 150)[0]
    slots.read(0, ids[:BLOCK].tolist(), 0)
    slots.copy(0, 3, BLOCK)
    one = slots.read(0, ids[BLOCK : BLOCK + 9].tolist(), BLOCK)
    assert torch.equal(slots.read(3, ids[BLOCK : BLOCK + 9].tolist(), BLOCK), one)
    pair = slots.step([0, 3], [5, 5], [BLOCK + 9] * 2)
    assert torch.equal(pair[0], pair[1])


def test_what_is_beyond_the_context_or_the_vocabulary_is_refused():
    slots = Slots(network(context=70), 2)
    with pytest.raises(ModelError, match="context"):
        slots.step([0], [5], [70])
    with pytest.raises(ModelError, match="id 101"):
        slots.step([0], [101], [3])
    with pytest.raises(ModelError, match="position 73"):
        slots.read(0, [5] * 10, 64)
    slots.step([0], [5], [69])


def test_pages_go_round_and_none_is_lost():
    """Slots filled and left in turns never hold a page twice, and give all of them back."""
    slots, ids = Slots(network(), 5), ids_of(5, 200)
    pages, source = slots.pages, torch.Generator().manual_seed(3)
    free = sorted(pages._free)
    for _ in range(40):
        slot, length = (int(torch.randint(n, (1,), generator=source)) for n in (5, 150))
        slots.leave(slot)
        for start in range(0, length, BLOCK):
            slots.read(slot, ids[slot, start : min(start + BLOCK, length)].tolist(), start)
        slots.step([slot], [3], [length])
        held = [page for of in pages._of for page in of]
        assert sorted([*held, *pages._free]) == free
        assert len(pages._of[slot]) == -(-(length + 1) // PAGE)
    for slot in range(5):
        slots.leave(slot)
    assert sorted(pages._free) == free


def test_pages_that_lie_far_apart_are_read_together_first():
    """The few of a large pool, bit for bit as where they lie at its front."""
    model, ids = network(), ids_of(12, 200)
    slots, alone = Slots(model, 12), Slots(model, 12)
    for slot in range(12):
        for start in range(0, 3 * BLOCK, BLOCK):
            slots.read(slot, ids[slot, start : start + BLOCK].tolist(), start)
    slots.leave(11)
    slots.read(11, ids[11, :9].tolist(), 0)
    alone.read(11, ids[11, :9].tolist(), 0)
    assert isinstance(slots.pages.looking([11], [9]).rows, torch.Tensor)
    assert isinstance(alone.pages.looking([11], [9]).rows, slice)
    assert torch.equal(slots.step([11], [4], [9]), alone.step([11], [4], [9]))


def test_a_text_that_turns_into_no_numbers_is_alone_with_it():
    """Texts of different lengths beside it: their scores are the same bits."""
    model = network("untied")
    slots, ids = Slots(model, 4), ids_of(4, 200)
    lengths = [9, 40, 70, 130]
    for slot, length in enumerate(lengths):
        for start in range(0, length, BLOCK):
            slots.read(slot, ids[slot, start : min(start + BLOCK, length)].tolist(), start)
    expected = slots.step(range(4), [3, 4, 5, 6], lengths)
    model.model.embed_tokens.weight.data[7] = float("nan")
    found = slots.step(range(4), [7, 4, 5, 6], lengths)
    assert found[0].isnan().all()
    assert torch.equal(found[1:], expected[1:])


@pytest.mark.parametrize("name", SHAPES)
def test_a_long_text_is_the_same_bit_for_bit_beside_a_longer_one(name):
    """Of many pages: how sums are grouped must not depend on how many the longest text has."""
    model = network(name, context=800)
    slots, ids = Slots(model, 6), ids_of(6, 800)
    lengths = [170, 200, 330, 420, 600, 799]
    for slot, length in enumerate(lengths):
        for start in range(0, length, BLOCK):
            slots.read(slot, ids[slot, start : min(start + BLOCK, length)].tolist(), start)
    whole = slots.step(range(6), [5] * 6, lengths)
    for slot, length in enumerate(lengths):
        assert torch.equal(slots.step([slot], [5], [length])[0], whole[slot])
