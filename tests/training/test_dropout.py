"""Dropout: the same whoever draws it, and nothing where nobody trains."""

import numpy as np
import pytest
import torch

from nextword.kernels.choose import plain_only
from nextword.model.layers import SPAN, at_positions
from nextword.model.runner import LayerRunner, as_it_stands, compiled, keeping_less
from nextword.targets.batch import Batch
from nextword.training.dropout import Dropout
from nextword.training.step import LanguageModelLoss, add_gradients
from tests.model.test_transformer import SHAPE, scattered
from tests.training.test_layers import CPU, assert_equal, ids
from tests.training.test_resume import OPTIONS, assert_same

LAYERS, WIDTH = SHAPE.num_hidden_layers, SHAPE.hidden_size
DROPOUT = Dropout(0.25, LAYERS, WIDTH, seed=3)


def kept(dropout=DROPOUT, step=0, rows=slice(0, 4), length=24):
    """What is drawn for rows of a step."""
    given = np.zeros((rows.stop - rows.start, length), dtype=np.int64)
    return dropout.of(Batch(given, given), step, rows).kept


def test_whoever_divides_the_rows_draws_the_same():
    whole = kept(rows=slice(0, 9))
    assert whole.shape == (9, LAYERS, 2, 2, WIDTH)
    assert whole.dtype == np.float32
    parts = [kept(rows=slice(first, min(first + 2, 9))) for first in range(0, 9, 2)]
    assert (np.concatenate(parts) == whole).all()


def test_each_row_step_layer_half_span_and_seed_draws_its_own():
    drawn = [*kept().reshape(-1, WIDTH), *kept(step=1).reshape(-1, WIDTH)]
    drawn += [*kept(DROPOUT._replace(seed=4)).reshape(-1, WIDTH)]
    assert len({one.tobytes() for one in drawn}) == len(drawn)


def test_a_share_is_left_out_and_the_sum_stays():
    drawn = kept(rows=slice(0, 400))
    assert set(np.unique(drawn)) == {0, np.float32(1 / 0.75)}
    assert (drawn == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert kept(DROPOUT._replace(share=0.0)) is None


@pytest.mark.parametrize("half", [0, 1])
def test_what_is_left_out_is_a_halfs_own_channels(half):
    model, given = scattered(), torch.from_numpy(ids(2, 12))
    without = torch.ones(2, LAYERS, 2, 1, WIDTH)
    without[:, 1, half, :, ::2] = 0.0
    with torch.no_grad():
        found = model.hidden(given, kept=without)
        assert not torch.allclose(found, model.hidden(given), atol=1e-3)
        layer = model.model.layers[1]
        (layer.self_attn.o_proj, layer.mlp.down_proj)[half].weight[::2] = 0.0
        torch.testing.assert_close(found, model.hidden(given))


def test_each_span_of_positions_does_without_its_own():
    drawn = torch.from_numpy(kept(length=SPAN + 5))
    at = at_positions(drawn, SPAN + 5)
    assert at.shape[-2] == SPAN + 5
    assert (at[..., :SPAN, :] == drawn[..., :1, :]).all()
    assert (at[..., SPAN:, :] == drawn[..., 1:, :]).all()
    assert at_positions(at, SPAN + 5) is at


def gradients(runner, drawn):
    """Return loss and gradients of a batch in which channels are left out."""
    model = scattered()
    model.model.runner = runner
    batch = Batch(ids(4, 24), ids(4, 24, 1), kept=drawn)
    loss = LanguageModelLoss(model, precision=torch.float32)
    (nats,) = add_gradients(loss, [batch], 96.0, CPU)
    return float(nats), {name: weight.grad for name, weight in model.named_parameters()}


def test_its_gradients_are_the_plain_networks_however_layers_are_computed():
    with plain_only():
        plain = gradients(None, kept())
        ones = gradients(None, np.ones_like(kept()))
    assert plain[0] != pytest.approx(ones[0], rel=1e-3)
    assert_equal(plain, gradients(None, kept()))
    for how in "selective", "full":
        assert_equal(plain, gradients(LayerRunner(keeping_less(as_it_stands, how)), kept()))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_compiled_too():
    with plain_only():
        plain = gradients(None, kept())
    step = compiled(as_it_stands, lengths_vary=True)
    assert_equal(plain, gradients(LayerRunner(step), kept()))


def test_a_run_that_goes_on_leaves_out_the_same(place, trained):
    options = [*OPTIONS, "--training.dropout", "0.2"]
    trained.copy_to(place, "train", "--name", "whole", *options)
    trained.copy_to(place, "train", "--name", "parts", *options)
    done = place.nextword("train", "--resume", "parts@5")
    assert done.returncode == 0, done.stderr
    runs = place.folder / "runs"
    assert_same(runs / "whole", runs / "parts")
    trained.copy_to(place, "train", "--name", "none", *OPTIONS)
    with pytest.raises(AssertionError):
        assert_same(runs / "whole", runs / "none")
