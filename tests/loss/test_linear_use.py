"""How the linear cross-entropy is used: shapes, autograd, compilers, wrong input, memory."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from nextword import linear_cross_entropy
from nextword.kernels.loss_chunks import default_rows
from tests.loss.test_linear import case, exact, relative


def test_int32_targets_strided_rows_and_three_dimensions():
    x, w, targets = case(n=36)
    plain = linear_cross_entropy(x, w, targets)
    assert linear_cross_entropy(x, w, targets.int()).item() == plain.item()
    wide = torch.empty(36, 32, dtype=torch.float64)
    wide[:, ::2] = x.detach()
    assert linear_cross_entropy(wide[:, ::2], w, targets).item() == plain.item()
    cube, square = x.detach().view(3, 12, 16), targets.view(3, 12)
    found = linear_cross_entropy(cube, w, square, reduction="none", statistics=True)
    assert found.loss.shape == found.statistics.entropy.shape == (3, 12)
    torch.testing.assert_close(found.loss.mean(), plain)


def test_only_what_is_asked_for_is_computed(monkeypatch):
    from nextword.loss import operator

    asked = []
    original = operator.compute

    def note(request):
        asked.append((request.need_hidden, request.need_weight))
        return original(request)

    monkeypatch.setattr(operator, "compute", note)
    x, w, targets = case()
    linear_cross_entropy(x, w.detach(), targets).backward()
    linear_cross_entropy(x.detach(), w, targets).backward()
    with torch.no_grad():
        assert not linear_cross_entropy(x, w, targets).requires_grad
    linear_cross_entropy(x.detach(), w.detach(), targets)
    assert asked == [(True, False), (False, True), (False, False), (False, False)]
    assert x.grad is not None
    assert w.grad is not None


def test_evaluation_can_leave_influence_out():
    x, w, targets = case()
    with torch.no_grad():
        found = linear_cross_entropy(x, w, targets, statistics=True, influence=False)
        whole = linear_cross_entropy(x, w, targets, statistics=True)
    assert not found.statistics.influence.any()
    assert torch.equal(found.statistics.entropy, whole.statistics.entropy)


def test_gradcheck_and_no_second_derivative():
    x, w, targets = case(n=5, d=3, v=7)
    weights = torch.rand(5, dtype=torch.float64)
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(
            lambda a, b, reduction=reduction: linear_cross_entropy(
                a, b, targets, reduction=reduction, token_weights=weights, chunk_rows=2
            ),
            (x, w),
        )
    (grad,) = torch.autograd.grad(linear_cross_entropy(x, w, targets) ** 2, x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_the_loss_may_be_used_twice_and_gradients_add_up():
    x, w, targets = case()
    loss = linear_cross_entropy(x, w, targets)
    (loss + 3 * loss).backward(retain_graph=True)
    loss.backward()
    _, dx, dw = exact(x, w, targets, "mean")
    assert relative(x.grad, 5 * dx) < 1e-12
    assert relative(w.grad, 5 * dw) < 1e-12


def test_a_gradient_that_was_given_away_and_changed_is_computed_again():
    """The first backward hands its buffers over; what is done to them must not come back."""
    x, w, targets = case()
    loss = linear_cross_entropy(x, w, targets)
    _, dx, dw = exact(x, w, targets, "mean")
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        assert relative(x.grad, times * dx) < 1e-12
        assert relative(w.grad, times * dw) < 1e-12
    x.grad.zero_()
    w.grad.zero_()
    loss.backward()
    assert relative(x.grad, dx) < 1e-12
    assert relative(w.grad, dw) < 1e-12


def test_passes_of_one_shape_one_after_the_other_do_not_share_results():
    """Buffers are lent again; gradients are not among them."""
    first, second = (case(dtype=torch.bfloat16, seed=seed) for seed in (0, 1))
    one = torch.autograd.grad(linear_cross_entropy(*first), first[:2])
    kept = [value.clone() for value in one]
    torch.autograd.grad(linear_cross_entropy(*second), second[:2])
    assert all(torch.equal(value, before) for value, before in zip(one, kept, strict=True))


def test_tied_embeddings_and_accumulation():
    """The matrix is read as embedding too; k parts of loss/k are the whole."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 8, generator=generator, dtype=torch.float64).requires_grad_()
    ids = torch.randint(0, 50, (4, 12), generator=generator)

    def grad(loss_of, parts):
        table.grad = None
        for part in ids.split(4 // parts):
            hidden = F.embedding(part[:, :-1], table).tanh()
            (loss_of(hidden.flatten(0, 1), table, part[:, 1:].flatten()) / parts).backward()
        return table.grad.clone()

    plain = grad(lambda x, w, t: F.cross_entropy(x @ w.T, t), 1)
    for parts in (1, 2, 4):
        torch.testing.assert_close(grad(linear_cross_entropy, parts), plain)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_compiler_takes_it_as_one_node(reduction):
    x, w, targets = case(n=40)

    def loss(x, w, targets):
        found = linear_cross_entropy(
            2 * x, w, targets, reduction=reduction, statistics=True, z_loss=1e-3
        )
        return found.loss.square().sum() + found.statistics.entropy.sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x, w, targets), (x, w))
    plain = torch.autograd.grad(loss(x, w, targets), (x, w))
    for one, two in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, two)


def test_the_operation_keeps_the_rules_of_registered_ones():
    from nextword.loss.operator import operation

    x, w, targets = case(n=6, d=3, v=7, dtype=torch.float32)
    arguments = (
        x, w, None, targets, None, -100, "mean", 0.0, 0.0, 0.0, torch.float32,
        True, True, False, True, True, 2,
    )  # fmt: skip
    torch.library.opcheck(
        operation,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": torch.zeros(3)}, "bias"),
        ({"token_weights": torch.zeros(3)}, "token_weights"),
        ({"token_weights": torch.zeros(37).requires_grad_()}, "detach"),
        ({"reduction": "avg"}, "reduction 'avg'"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"softcap": 0.0}, "softcap"),
    ],
)
def test_options_that_do_not_fit_are_named(change, words):
    x, w, targets = case(dtype=torch.float32)
    with pytest.raises(ValueError, match=words):
        linear_cross_entropy(x, w, targets, **change)


def test_float16_is_refused():
    x, w, targets = case(dtype=torch.float32)
    with pytest.raises(ValueError, match="use bfloat16 or float32"):
        linear_cross_entropy(x, w, targets, precision=torch.float16)
    with pytest.raises(ValueError, match="use bfloat16 or float32"):
        linear_cross_entropy(x.half(), w.half(), targets)


def test_shapes_that_do_not_fit_are_named():
    x, w, targets = case()
    with pytest.raises(ValueError, match="do not fit"):
        linear_cross_entropy(x, w[:, :3], targets)
    with pytest.raises(ValueError, match="asks for targets"):
        linear_cross_entropy(x, w, targets[:5])
    with pytest.raises(ValueError, match="whole numbers"):
        linear_cross_entropy(x, w, targets.double())


def test_memory_holds_a_chunk_of_logits_and_no_more():
    """Peak memory of a child that computes 4,096 × 30,000 logits' worth of loss and gradients."""
    code = (
        "import torch, pathlib\n"
        "from nextword import linear_cross_entropy\n"
        "status = lambda: int([l for l in pathlib.Path('/proc/self/status').read_text()"
        ".splitlines() if l.startswith('VmHWM')][0].split()[1]) / 1000\n"
        "x = torch.randn(4096, 32).requires_grad_(); w = torch.randn(30_000, 32).requires_grad_()\n"
        "t = torch.randint(0, 30_000, (4096,))\n"
        "linear_cross_entropy(x[:8], w, t[:8]).backward()\n"
        "before = status(); linear_cross_entropy(x, w, t).backward(); print(status() - before)"
    )
    if sys.platform != "linux":
        code = "print(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    chunk = default_rows(30_000, torch.float32, torch.device("cpu")) * 30_000 * 4 / 1e6
    assert chunk < 4096 * 30_000 * 4 / 1e6 / 3
    assert float(done.stdout) < chunk + 30_000 * 32 * 4 / 1e6 + 8  # and dW, and a tile or two


def test_few_rows_at_once_for_large_vocabularies_more_for_small():
    device = torch.device("cpu")
    assert default_rows(100_000, torch.float32, device) == 512
    assert default_rows(100_000, torch.bfloat16, device) == 1024
    assert default_rows(50_304, torch.float32, device) == 1024
    assert default_rows(50_304, torch.bfloat16, device) == 1024
    assert default_rows(256, torch.float32, device) == 2048


def test_what_was_asked_in_inference_mode_first_can_be_trained_next():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(6, 8, generator=generator), torch.randn(37, 8, generator=generator)
    targets = torch.arange(6)
    with torch.inference_mode():
        asked = linear_cross_entropy(x, w, targets)
    x.requires_grad_()
    loss = linear_cross_entropy(x, w, targets)
    loss.backward()
    assert float(loss.detach()) == float(asked)
    assert x.grad is not None
