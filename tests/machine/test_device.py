import pytest
import torch

from nextword.base.errors import SettingsError
from nextword.forecast import peak_memory
from nextword.machine.device import choose_machine
from nextword.machine.memory import free_memory, give_back_memory
from nextword.machine.options import MachineSettings


def test_the_machine_is_chosen_by_looking():
    machine = choose_machine(MachineSettings())
    assert machine.device.type in ("cpu", "cuda", "xpu", "mps")
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


@pytest.mark.parametrize(
    ("kind", "has_cards", "said"),
    [
        ("cuda", True, "CUDA GPU"),
        ("rocm", True, "AMD GPU (ROCm)"),
        ("xpu", True, "Intel GPU"),
        ("mps", False, "Apple GPU"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, kind, has_cards, said):
    waited, cards = [], 1  # a launcher shows it its own alone
    if kind == "rocm":  # which PyTorch calls CUDA
        monkeypatch.setattr(torch.version, "hip", "7.1")
        kind = "cuda"
    for name, part in (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.backends.mps)):
        monkeypatch.setattr(part, "is_available", lambda name=name: name == kind)
    for part in (torch.cuda, torch.xpu):
        monkeypatch.setattr(part, "get_device_name", lambda device: "a card")
        monkeypatch.setattr(part, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for name, part in (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.mps)):
        monkeypatch.setattr(part, "synchronize", lambda *device, name=name: waited.append(name))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_machine(MachineSettings()).device.index == (0 if has_cards else None)
    cards = 8
    machine = choose_machine(MachineSettings())
    assert str(machine.device) == (f"{kind}:3" if has_cards else kind)
    assert machine.precision == (torch.bfloat16 if has_cards else torch.float32)
    assert str(machine).startswith(said)
    machine.synchronize()
    assert waited == [kind]
    described = machine.describe()
    assert described["device"] == str(machine.device)
    assert (described["name"] == "a card") == has_cards


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_card_is_asked_for_its_own_memory(monkeypatch, kind):
    part, device, emptied = getattr(torch, kind), torch.device(kind, 0), []
    monkeypatch.setattr(part, "mem_get_info", lambda device: (7, 9))
    monkeypatch.setattr(part, "empty_cache", lambda: emptied.append(kind))
    monkeypatch.setattr(part, "max_memory_allocated", lambda device: 5)
    assert free_memory(device) == 7
    assert peak_memory(device) == 5
    give_back_memory(device)
    assert emptied == [kind]


def test_a_machine_without_bfloat16_products_computes_in_float32(monkeypatch):
    monkeypatch.setattr("nextword.machine.device.has_bfloat16", lambda device: False)
    assert choose_machine(MachineSettings(device="cpu")).precision == torch.float32
