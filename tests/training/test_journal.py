from nextword.training import journal as journals
from nextword.training.journal import Journal


def test_events_are_on_the_disk_at_once_and_a_cut_line_is_left_out(tmp_path):
    journal = Journal(tmp_path)
    journal.write({"event": "step", "step": 1, "loss": 2.5})
    journal.write({"event": "step", "step": 2, "loss": float("nan")})
    with open(journal.file, "ab") as stream:
        for line in (b"", b"[1]", b"{}", b'{"event": 1, "step": 2}', b"\xff\xfe", b"[" * 100_000):
            stream.write(line + b"\n")
        stream.write(b'{"event": "step", "step": 3, "lo')
    assert list(journal.read()) == [
        {"event": "step", "step": 1, "loss": 2.5},
        {"event": "step", "step": 2, "loss": None},
    ]


def test_a_resumed_run_forgets_what_came_after(tmp_path):
    journal = Journal(tmp_path)
    for step in range(1, 6):
        journal.write({"event": "step", "step": step})
    journal.forget_after(3)
    assert [event["step"] for event in journal.read()] == [1, 2, 3]


def test_what_was_written_last_is_found_from_the_end_over_blocks_of_any_size(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    events = []
    for step in range(1, 60):
        events.append({"event": "step", "step": step, "loss": 0.5, "note": "x" * (step * 7 % 90)})
        if step % 10 == 0:
            events.append({"event": "evaluation", "step": step, "sample": 'it says "step" é'})
    for event in events:
        journal.write(event)
    for block in (1, 7, 64, 1000, 1 << 16):
        monkeypatch.setattr(journals, "BLOCK", block)
        assert list(journal.latest()) == events[::-1]
        assert list(journal.latest("evaluation")) == [e for e in events[::-1] if "sample" in e]
    assert list(journal.read("evaluation")) == [e for e in events if "sample" in e]
    assert list(journal.read("evaluation", "step")) == events
    assert list(journal.read("floor")) == []


def test_a_line_of_the_wrong_kind_is_damage(tmp_path):
    journal = Journal(tmp_path)
    good = {"event": "step", "step": 1, "loss": 2.5, "seconds": 0.5}
    for event in (
        good,
        {**good, "loss": "2.5"},
        {**good, "step": -1},
        {"event": "evaluation", "step": 1, "sample": 5},
        {"event": "replay", "step": 1, "pins": [{"nats": [1.0], "likeliest": ["a"]}]},
        {"event": "pace", "step": 1},
        {"event": "rollback", "step": 1, "left_out": None},
        {"event": "something new", "step": 1, "more": [1]},
    ):
        journal.write(event)
    assert [event["event"] for event in journal.read()] == ["step", "something new"]
    steps, losses, seconds = journal.curve()
    assert (list(steps), list(losses), seconds) == ([1], [2.5], 0.5)


def test_ends_are_forgotten_and_found(tmp_path):
    journal = Journal(tmp_path)
    assert not journal.has_ended()
    for step in (1, 2, 3):
        journal.write({"event": "step", "step": step, "loss": 1.0, "seconds": float(step)})
    assert not journal.has_ended()
    for event in ("floor", "ruler", "end"):
        journal.write({"event": event, "step": 3})
    assert journal.has_ended()
    journal.forget_after(3)
    assert [event["step"] for event in journal.read()] == [1, 2, 3]
    assert not journal.has_ended()
    journal.forget_after(-1)
    assert journal.file.read_bytes() == b""
    assert list(journal.read("step")) == []


def test_clocks_that_began_anew_are_added_up(tmp_path):
    journal = Journal(tmp_path)
    for step, seconds in ((1, 1.0), (2, 2.0), (3, 0.5), (4, 1.5)):
        journal.write({"event": "step", "step": step, "loss": 1.0, "seconds": seconds})
    assert journal.curve()[2] == 3.5
