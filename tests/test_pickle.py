"""No pickle is ever read, and no code that lies in a model folder is run."""

import json
import os
import pickle
import shutil

import pytest
import torch

from nextword.base.errors import NextwordError
from nextword.prediction.loading import open_model
from tests import fuzz
from tests.good_files import MODEL
from tests.test_fuzz import good, reader_of  # noqa: F401 - a fixture


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("kind", fuzz.KINDS, ids=[kind.file for kind in fuzz.KINDS])
def test_a_pickle_in_the_place_of_any_file_is_refused_and_not_run(good, tmp_path, kind):  # noqa: F811
    place, mark = tmp_path / "read", tmp_path / "mark"
    shutil.copytree(good, place)
    (place / kind.file).write_bytes(pickle.dumps(Trap(mark)))
    reader_says(reader_of(kind), place)
    assert not mark.exists()


def reader_says(reader, place):
    try:
        reader(place)
    except NextwordError:
        return


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "optimizer.bin"])
def test_weights_that_are_pickled_are_not_looked_at(good, tmp_path, name):  # noqa: F811
    folder, mark = tmp_path / "it", tmp_path / "mark"
    shutil.copytree(good / MODEL, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"model": Trap(mark)}, folder / name)
    with pytest.raises(NextwordError, match="weights are safetensors only"):
        open_model(str(folder))
    assert not mark.exists()


def test_code_in_a_folder_is_not_run(good, tmp_path):  # noqa: F811
    folder, mark = tmp_path / "it", tmp_path / "mark"
    shutil.copytree(good / MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    named = {"AutoConfig": "modeling_it.Config", "AutoModelForCausalLM": "modeling_it.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": named}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    named = {"AutoTokenizer": ["modeling_it.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "auto_map": named}))
    (folder / "modeling_it.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    assert open_model(str(folder)).model.shape.num_hidden_layers == 1
    assert not mark.exists()


def test_the_trap_snaps_where_it_is_read(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()
