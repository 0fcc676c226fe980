"""Tensors copied into one piece of memory, and the file of them that every reader opens."""

import errno
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nextword.base.files import digest_of_file, sha256_of
from nextword.machine import copies
from nextword.machine.copies import PAGE, Copies

ALL = {
    "b/small": torch.arange(3, dtype=torch.uint8),
    "wide": torch.arange(5000, dtype=torch.float32).reshape(50, 100),
    "a": torch.tensor([1, -2], dtype=torch.int64),
    "half": torch.tensor([[1.5], [-0.25]], dtype=torch.bfloat16),
    "scalar": torch.tensor(7.0, dtype=torch.float64),
    "none": torch.empty(0, 4),
    "yes": torch.tensor([True, False, True]),
    'é"\n': torch.tensor([0.5], dtype=torch.float16),
    "i": torch.tensor([-3], dtype=torch.int32),
    "across": torch.arange(6.0).reshape(2, 3).T,
}  # fmt: skip


@pytest.mark.parametrize("past", [True, False], ids=["past the page cache", "through it"])
@pytest.mark.parametrize("values", [ALL, {}, {"even": torch.ones(PAGE)}])
def test_other_readers_find_each_tensor(tmp_path, monkeypatch, values, past):
    monkeypatch.setattr(copies, "WORTH_GOING_PAST", 0 if past else 1 << 40)
    file = tmp_path / "it.safetensors"
    file.write_bytes(b"older and longer" * 10_000)
    digest = Copies.of(values).write(file, {"format": "pt"})
    found = load_file(file)
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].equal(value)
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert digest == digest_of_file(file)
    assert digest != digest_of_file(file, sha256_of(file)) == sha256_of(file)


def test_the_order_in_which_tensors_come_changes_no_byte(tmp_path):
    for name, values in ("one", ALL), ("two", dict(reversed(ALL.items()))):
        Copies.of(values).write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_room_is_used_again_where_all_fits_and_never_where_not():
    first = Copies.of(ALL)
    again = Copies.of({name: value + value for name, value in ALL.items()}, first)
    assert again.memory.data_ptr() == first.memory.data_ptr()
    assert again.tensors["wide"].equal(2 * ALL["wide"])
    for changed in (ALL["wide"].double(), ALL["wide"].T):
        other = Copies.of({**ALL, "wide": changed}, again)
        assert other.memory.data_ptr() != again.memory.data_ptr()
        assert other.tensors["wide"].equal(changed)


def test_a_file_system_that_reads_no_memory_itself_is_written_as_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "WORTH_GOING_PAST", 0)
    real, asked = os.write, []

    def refuses_once(handle, part):
        asked.append(len(part))
        if len(asked) == 2:  # in the middle: what was written is written anew
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(handle, part)

    monkeypatch.setattr(copies.os, "O_DIRECT", os.O_APPEND, raising=False)  # any flag
    monkeypatch.setattr(copies.os, "write", refuses_once)
    file = tmp_path / "it"
    digest = Copies.of(ALL).write(file)
    assert digest == digest_of_file(file)
    assert load_file(file)["wide"].equal(ALL["wide"])


@pytest.mark.parametrize("past", [True, False])
def test_a_full_disk_is_no_reason_to_try_again(tmp_path, monkeypatch, past):
    monkeypatch.setattr(copies, "WORTH_GOING_PAST", 0 if past else 1 << 40)
    asked = []

    def full(handle, part):
        asked.append(len(part))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copies.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Copies.of(ALL).write(tmp_path / "it")
    assert len(asked) == 1
