"""Verbs other than `train`, killed in the middle: no half of anything stands under a final name."""

import os
import signal
import sys

import pytest

from tests import children

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills by signals, and forks")
VERBS = {
    "prepare": (["prepare", "text.txt", "--vocabulary.kind", "byte"], "made", "manifest.json"),
    "compress": (["compress", "MODEL", "text.txt"], "text.nw", ""),
    "report": (["report", "MODEL"], "page.html", ""),
    "finetune": (
        ["finetune", "MODEL", "labels.jsonl", "--name", "judge", "--finetune.steps", "2"],
        "runs/judge",
        "checkpoints/step-000002/training/manifest.json",
    ),
}


@pytest.mark.parametrize(
    ("verb", "call"),
    [(verb, call) for verb in VERBS for call in ((0, 1) if verb == "compress" else (0, 1, 3))],
)
def test_a_kill_leaves_all_of_an_output_or_nothing(place, shared, small_run, verb, call):
    words, output, last = VERBS[verb]
    command = [str(shared.folder / "runs" / small_run) if w == "MODEL" else w for w in words]
    if verb != "finetune":
        command += ["--output", output]
    (place.folder / "text.txt").write_text("we are all humans born to make mistakes\n" * 40)
    rows = [
        f'{{"text": "number {n} was {kind}", "label": "{kind}"}}\n'
        for n in range(12)
        for kind in ("good", "bad")
    ]
    (place.folder / "labels.jsonl").write_text("".join(rows))

    def killed() -> int:
        from nextword.base import files

        real, left = os.replace, [call]

        def replace(*names: object) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            real(*names)

        files.os.replace = replace
        return children.run_verb(tuple(command))

    os.environ.update(place.variables())  # of the fork: `place` takes it back at the test's end
    status, said = children.child(killed, limited=False)
    final = place.folder / output
    assert status == -signal.SIGKILL, said
    assert not final.is_file()  # a file is whole or not there
    assert verb == "finetune" or not (final / last).exists()  # and so is a folder
    begun = verb == "finetune" and final.exists()
    again = ["train", "--resume", "judge"] if begun else command
    done = place.nextword(*again)
    assert done.returncode == 0, done.stderr
    assert (final / last).exists() if last else final.stat().st_size > 0
