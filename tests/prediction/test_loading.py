"""Opening a model: what it computes must be numbers, not its weights alone."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from nextword.base.errors import ModelError
from nextword.prediction.loading import open_model


@pytest.mark.parametrize(
    ("part", "value", "kind"),
    [
        ("down_proj", 3e38, torch.float32),
        ("o_proj", 3e38, torch.bfloat16),
        ("embed_tokens", 1e200, torch.float64),  # no number in float32
    ],
)
def test_weights_whose_products_are_too_large_are_refused(
    small_run, shared, tmp_path, part, value, kind
):
    (checkpoint, *_) = sorted((shared.folder / "runs" / small_run / "checkpoints").glob("step-*"))
    folder = tmp_path / "it"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("training"))
    assert open_model(str(folder)).step is None
    weights = load_file(folder / "model.safetensors")
    (name, *_) = [name for name in weights if part in name]
    weights[name] = torch.full_like(weights[name], value, dtype=kind)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="computes of one token is no number"):
        open_model(str(folder))
