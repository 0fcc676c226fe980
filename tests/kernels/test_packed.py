"""A matrix laid out for few rows gives the plain product, each row by itself."""

import pytest
import torch
import torch.nn.functional as F

from nextword.kernels import packed
from nextword.kernels.packed import PackedMatrix

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def matrices(outputs, inputs, rows=64):
    source = torch.Generator().manual_seed(outputs)
    weight = torch.randn(outputs, inputs, generator=source)
    return weight, torch.randn(rows, inputs, generator=source)


@pytest.mark.parametrize(
    ("outputs", "inputs"), [(1152, 384), (384, 1024), (97, 33), (1, 5), (5, 1)]
)
def test_it_is_the_plain_product(outputs, inputs):
    weight, rows = matrices(outputs, inputs)
    with torch.inference_mode():
        matrix = PackedMatrix(weight)
        assert matrix.packed is not None
        exact = rows.double() @ weight.double().T
        for count in (1, 2, 5, 16, 64):
            found = matrix.times(rows[:count])
            assert found.shape == (count, outputs)
            assert float((found - exact[:count]).norm() / exact[:count].norm()) < 1e-6


@pytest.mark.parametrize(("outputs", "inputs"), [(1152, 384), (384, 1024), (97, 33)])
def test_no_row_depends_on_those_beside_it(outputs, inputs):
    weight, rows = matrices(outputs, inputs)
    with torch.inference_mode():
        matrix = PackedMatrix(weight)
        whole = matrix.times(rows)
        for count in (1, 2, 3, 4, 7, 16, 40):
            for start in range(0, 64 - count, count):
                part = rows[start : start + count].contiguous()
                assert matrix.times(part).equal(whole[start : start + count]), (count, start)


@pytest.mark.parametrize("why", ["raises", "other numbers", "bfloat16", "empty"])
def test_where_it_cannot_be_laid_out_the_plain_product_serves(monkeypatch, why):
    weight, rows = matrices(48, 32)
    if why == "raises":

        def product(rows, laid_out):
            raise RuntimeError("could not create a primitive")

        monkeypatch.setattr(packed, "_product", product)
    elif why == "other numbers":
        monkeypatch.setattr(packed, "_product", lambda rows, laid_out: F.linear(rows, 2 * weight))
    elif why == "bfloat16":
        weight, rows = weight.bfloat16(), rows.bfloat16()
    else:
        weight = weight[:0]
    with torch.inference_mode():
        matrix = PackedMatrix(weight)
        assert matrix.packed is None
        assert matrix.times(rows).equal(F.linear(rows, weight))
