import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import EvaluationError
from nextword.loss.bits import bits, bits_per_byte, perplexity
from nextword.loss.chunked import chunked_cross_entropy
from nextword.loss.cross_entropy import cross_entropy, log_softmax


def case(n=37, d=16, v=101, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * scale
    w = torch.randn(v, d, generator=generator, dtype=torch.float64) * scale
    targets = torch.randint(0, v, (n,), generator=generator)
    return x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_(), targets


def reference(x, w, targets, ignore_index=-100):
    x, w = x.detach().double().requires_grad_(), w.detach().double().requires_grad_()
    loss = F.cross_entropy(x @ w.T, targets.long(), reduction="sum", ignore_index=ignore_index)
    loss.backward()
    return loss, x.grad, w.grad


def relative(found, true):
    return float((found.double() - true).norm() / true.norm())


def test_the_worked_example():
    logits = torch.log(torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64))
    assert float(cross_entropy(logits, torch.tensor([0]))) == pytest.approx(0.5108, abs=1e-4)
    assert bits(0.5108) == pytest.approx(0.737, abs=1e-3)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_probabilities_lie_in_0_1_sum_to_1_and_keep_the_order(values):
    logits = torch.tensor(values, dtype=torch.float64)
    probabilities = log_softmax(logits).exp()
    assert float(probabilities.sum()) == pytest.approx(1.0)
    assert (probabilities > 0).all()
    assert torch.equal(
        probabilities.sort(stable=True).values, probabilities[logits.sort(stable=True).indices]
    )


def test_the_plain_reference_equals_torchs():
    x, w, targets = case()
    targets[3] = -100
    logits = (x @ w.T).detach().requires_grad_()
    ours = cross_entropy(logits, targets)
    ours.backward()
    theirs = F.cross_entropy(logits.detach(), targets)
    torch.testing.assert_close(ours, theirs)
    assert float(cross_entropy(logits, torch.full((37,), -100))) == 0.0


@pytest.mark.parametrize("chunk_rows", [1, 5, 36, 37, 512])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_chunks_of_any_size_give_the_exact_loss_and_gradients(chunk_rows, dtype, tolerance):
    x, w, targets = case(dtype=dtype)
    loss = chunked_cross_entropy(x, w, targets, chunk_rows=chunk_rows)
    loss.backward()
    true, dx, dw = reference(x, w, targets)
    assert loss.item() == pytest.approx(true.item(), rel=1e-6 if dtype == torch.float32 else 1e-13)
    assert relative(x.grad, dx) < tolerance
    assert relative(w.grad, dw) < tolerance


@pytest.mark.parametrize("chunk_rows", [1, 4, 4096])
def test_bfloat16_products_lose_nothing_over_many_chunks(chunk_rows):
    x, w, targets = case(n=1024, d=64, v=512, dtype=torch.float32, scale=0.3)
    x.data, w.data = x.data.bfloat16().float(), w.data.bfloat16().float()
    loss = chunked_cross_entropy(x, w, targets, precision=torch.bfloat16, chunk_rows=chunk_rows)
    loss.backward()
    true, dx, dw = reference(x, w, targets)
    assert abs(loss.item() - true.item()) / 1024 < 1e-3
    assert relative(x.grad, dx) < 4e-3
    assert relative(w.grad, dw) < 4e-3


def test_ignored_targets_cost_nothing_and_have_zero_gradients():
    x, w, targets = case()
    targets[::3] = -100
    loss = chunked_cross_entropy(x, w, targets)
    loss.backward()
    true, _, dw = reference(x, w, targets)
    torch.testing.assert_close(loss, true)
    assert relative(w.grad, dw) < 1e-12
    assert not x.grad[::3].any()


def test_all_ignored_gives_zero_not_nan():
    x, w, targets = case()
    loss = chunked_cross_entropy(x, w, torch.full_like(targets, -100))
    loss.backward()
    assert loss.item() == 0.0
    assert not x.grad.any()
    assert not w.grad.any()


def test_the_incoming_gradient_counts():
    x, w, targets = case()
    (3.5 * chunked_cross_entropy(x, w, targets)).backward()
    _, dx, dw = reference(x, w, targets)
    assert relative(x.grad, 3.5 * dx) < 1e-12
    assert relative(w.grad, 3.5 * dw) < 1e-12


@pytest.mark.parametrize("bad", [101, -1, 5000])
def test_a_target_outside_the_vocabulary_is_named(bad):
    x, w, targets = case()
    targets[5] = bad
    with pytest.raises(IndexError, match=str(bad)):
        chunked_cross_entropy(x, w, targets)


def test_extreme_logits_stay_finite_and_right():
    x, w, targets = case(dtype=torch.float32, scale=30.0)
    loss = chunked_cross_entropy(x, w, targets)
    loss.backward()
    true, dx, _ = reference(x, w, targets)
    assert loss.item() == pytest.approx(true.item(), rel=1e-6)
    assert relative(x.grad, dx) < 1e-5


def test_what_is_not_a_number_shows():
    x, w, targets = case()
    with torch.no_grad():
        x[0, 0] = float("nan")
    assert chunked_cross_entropy(x, w, targets).isnan()


def test_gradcheck_and_no_second_derivative():
    x, w, targets = case(n=5, d=3, v=7)
    assert torch.autograd.gradcheck(
        lambda a, b: chunked_cross_entropy(a, b, targets, chunk_rows=2), (x, w)
    )
    (grad,) = torch.autograd.grad(chunked_cross_entropy(x, w, targets) ** 2, x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_only_what_is_asked_for_is_computed():
    x, w, targets = case()
    chunked_cross_entropy(x, w.detach(), targets).backward()
    assert x.grad is not None
    x, w, targets = case()
    chunked_cross_entropy(x.detach(), w, targets).backward()
    assert w.grad is not None
    with torch.no_grad():
        assert not chunked_cross_entropy(x, w, targets).requires_grad


def test_any_shape_of_rows():
    x, w, targets = case(n=36)
    flat = chunked_cross_entropy(x, w, targets)
    cube = chunked_cross_entropy(x.view(3, 12, 16), w, targets.view(3, 12))
    assert flat.item() == cube.item()


def test_units():
    assert bits(math.log(2)) == pytest.approx(1.0)
    assert perplexity(math.log(8)) == pytest.approx(8.0)
    assert perplexity(1e6) == math.inf
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2.0)
    with pytest.raises(EvaluationError):
        bits_per_byte(1.0, 0)
