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
