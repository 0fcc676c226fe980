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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_a_run_on_the_gpu_ends_near_the_floor(place):
    done = place.process("train", "--machine.device", "cuda", "--training.steps", "300")
    assert done.returncode == 0, done.stderr
    assert "Done in" in done.stderr
