"""Machines that come and go: who is left goes on, whoever comes is taken in."""

import time

import pytest
import torch.distributed as dist

from nextword.machine.ranks import Meeting
from nextword.training.rehearsal import pretended
from nextword.training.saver import Saver
from tests.nodes import come_and_go


def test_who_is_left_goes_on_and_whoever_comes_is_taken_in(place):
    """Losses and weights are those of the same order of processes undisturbed, bit for bit."""
    found = come_and_go(place, changes=2, parallel="fsdp")
    counts = [count for _, count in found["processes"]]
    assert counts[-3:] == [2, 1, 2]
    assert found["same losses"]
    assert found["same weights"]


def test_nobody_who_writes_waits_for_one_that_has_died():
    with pretended(2, 2, "fsdp") as ranks:
        met, saver, meeting = [], Saver(), Meeting(ranks)
        saver.meeting = meeting

        def write(_):
            try:
                meeting.come("written")
            except dist.DistError as error:
                met.append(str(error))
                raise
            return 0

        def train():
            saver.save(lambda room: None, write)
            time.sleep(0.2)
            raise RuntimeError("Connection closed by peer")

        began = time.monotonic()
        with pytest.raises(dist.DistError), saver.arriving(ranks):
            train()
        assert met == ["process 1 does not come any more to: written"]
        assert time.monotonic() - began < 60  # and not the ten minutes of a process that hangs
