"""One of two processes that do a command, and to whom something happens meanwhile.

    python -m tests.two POISONED STOPPED WORD…

POISONED is the step whose batch gives no number (-1: none), STOPPED the evaluation, from 1, in
whose midst the first process is told to stop. PATIENCE in the environment is for how many seconds
another is waited for, PREPARES how many the first takes to prepare the text.
"""

import datetime
import os
import sys
import time
import warnings


def main(poisoned: str, stopped: str, *words: str) -> int:
    """Do the command; return its status."""
    import torch

    from nextword import pretrain
    from nextword.cli import main as do
    from nextword.machine import ranks
    from tests.training.poisoned import poison, stop_in_evaluation

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    poison({int(poisoned)})
    if patience := os.environ.get("PATIENCE"):
        ranks.PATIENCE = datetime.timedelta(seconds=float(patience))
    if os.environ["RANK"] == "0":
        stop_in_evaluation(int(stopped))
        if seconds := os.environ.get("PREPARES"):
            check = pretrain.check_leaks
            pretrain.check_leaks = lambda *given: (time.sleep(float(seconds)), check(*given))
    try:
        do(list(words))
    except SystemExit as left:
        return int(left.code or 0)
    return 0


if __name__ == "__main__":
    ended = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(ended)  # gloo's threads may still be ending, which aborts an orderly exit now and then
