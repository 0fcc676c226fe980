import pytest
import torch

from nextword.base.errors import SettingsError
from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings


def test_the_machine_is_chosen_by_looking():
    machine = choose_machine(MachineSettings())
    assert machine.device.type in ("cpu", "cuda", "mps")
    assert machine.precision in (torch.float32, torch.bfloat16)
    assert machine.in_float32().precision == torch.float32


def test_float32_can_be_asked_for():
    assert choose_machine(MachineSettings(precision="float32")).precision == torch.float32


def test_a_device_that_is_not_there_is_said():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(SettingsError, match=missing):
        choose_machine(MachineSettings(device=missing))


def test_the_hardware_is_written_down():
    facts = choose_machine(MachineSettings(device="cpu")).describe()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["name"]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, kind):
    waited = []
    for name, part in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(part, "is_available", lambda name=name: name == kind)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    for part in (torch.cuda, torch.mps):
        monkeypatch.setattr(part, "synchronize", lambda *device: waited.append(device))
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # a launcher shows it its own alone
    assert choose_machine(MachineSettings()).device.index == {"cuda": 0, "mps": None}[kind]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    machine = choose_machine(MachineSettings())
    assert str(machine.device) == {"cuda": "cuda:3", "mps": "mps"}[kind]
    assert machine.precision == {"cuda": torch.bfloat16, "mps": torch.float32}[kind]
    assert str(machine).startswith({"cuda": "CUDA GPU", "mps": "Apple GPU"}[kind])
    machine.synchronize()
    assert len(waited) == 1
    described = machine.describe()
    assert described["device"] == str(machine.device)
    assert (described["name"] == "a card") == (kind == "cuda")


def test_a_machine_without_bfloat16_products_computes_in_float32(monkeypatch):
    monkeypatch.setattr("nextword.machine.device.has_bfloat16", lambda device: False)
    assert choose_machine(MachineSettings(device="cpu")).precision == torch.float32
