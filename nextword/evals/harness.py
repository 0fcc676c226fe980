"""lm-evaluation-harness (EleutherAI) asked about a model folder, through its own `hf` model."""

import io
import logging
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from numbers import Real
from pathlib import Path
from typing import Any

from nextword.base.errors import EvaluationError, SettingsError
from nextword.base.options import nearest
from nextword.corpus.packages import one_line
from nextword.evals.tasks import OWN, OWN_BEGIN, own_task, prepared_of
from nextword.explanation.benchmarks import Benchmark, Leaked
from nextword.prediction.loading import Opened
from nextword.vocabulary.leakage import find_leaks
from nextword.vocabulary.prepared import Prepared
from nextword.vocabulary.shards import ShardWriter, TokenStream


def run_tasks(
    opened: Opened,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    fewshot: int | None = None,
    batch: int = 8,
    include: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Benchmark]:
    """Ask tasks of a model.

    Args:
        opened: a model that goes on with a text.
        tasks: names of the harness', of `OWN`, or of files in `include`.
        limit: documents of each task at most.
        fewshot: examples before each question; default: the task's own.
        batch: rows at once.
        include: folder of more tasks, in the harness' own YAML.
        say: tells the user what is done.

    Returns:
        one entry a task, those of groups included.

    Raises:
        EvaluationError: a task's data cannot be had, or the harness fails.
        SettingsError: the harness is not installed, or a task is unknown.
    """
    opened.refuse("benchmark")
    harness = _harness()
    say(f"asking {', '.join(tasks)} of {opened.name}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root, _quiet():
        asked = [
            own_task(task, opened, Path(root), limit) if task in OWN else task for task in tasks
        ]
        foreign = [task for task in asked if isinstance(task, str)]
        known = _known(harness, foreign, include)
        _check(foreign, known)
        try:
            # It would tell of the git repository in which the user happens to stand.
            harness.evaluator.get_git_commit_hash = lambda: None
            done = harness.simple_evaluate(
                model=_model(opened, batch),
                tasks=asked,
                task_manager=known,
                limit=limit,
                num_fewshot=fewshot,
                log_samples=True,
                bootstrap_iters=1000,
            )
        except Exception as error:  # data from anywhere, code of hundreds of tasks
            raise EvaluationError(f"the harness failed: {one_line(error)}") from None
        prepared = prepared_of(opened)
        return [
            _benchmark(task, done, opened, prepared, Path(root), harness.__version__)
            for task in done["samples"]
        ]


def _harness() -> Any:
    try:
        import lm_eval
        import lm_eval.evaluator
        import lm_eval.models.huggingface
        import lm_eval.tasks
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"benchmarks need the package {error.name}: pip install 'nextword[evals]'"
        ) from None
    return lm_eval


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness and what it calls from talking; what matters is raised."""
    names = ("lm_eval", "datasets", "transformers", "")
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    try:
        for logger, _ in levels:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")
            if not sys.stderr.isatty():  # bars are for a terminal
                stack.enter_context(redirect_stderr(io.StringIO()))
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


def _known(harness: Any, foreign: Sequence[str], include: Path | None) -> Any:
    """Return what knows the tasks; the harness' own, some seconds to look through, where needed."""
    folder = None if include is None else str(include)
    manager = harness.tasks.TaskManager
    if not foreign or folder is not None:
        known = manager(include_path=folder, include_defaults=False)
        if all(task in known.all_subtasks for task in foreign):
            return known
        # The harness has none of such a name, and need not be looked through to say so.
        _check([task for task in foreign if task.startswith(OWN_BEGIN)], known)
    elif ours := [task for task in foreign if task.startswith(OWN_BEGIN)]:
        raise _no_such(ours[0], OWN)
    return manager(include_path=folder, include_defaults=True)


def _check(tasks: Sequence[str], known: Any) -> None:
    for task in tasks:
        if not known.match_tasks([task]):
            raise _no_such(task, [*OWN, *known.all_tasks])


def _no_such(task: str, known: Iterable[str]) -> SettingsError:
    near = nearest(task, list(known))
    return SettingsError(f"no task {task!r}; `lm_eval ls tasks` lists the harness'.{near}")


def _model(opened: Opened, batch: int) -> Any:
    from lm_eval.models.huggingface import HFLM

    class Model(HFLM):  # type: ignore[misc]
        """The harness' own, which asks of a whole text for no beginning that stands there already.

        It puts a prefix before a whole text, and its tokenizer would put end-of-text there again:
        the second would count as a token of the text.
        """

        add_bos_token: Any

        def loglikelihood_rolling(self, *arguments: Any, **options: Any) -> Any:
            begins, self.add_bos_token = self.add_bos_token, False
            try:
                return super().loglikelihood_rolling(*arguments, **options)
            finally:
                self.add_bos_token = begins

    # A model of this program has always read end-of-text before a text; others say it themselves.
    begins = {"add_bos_token": True} if opened.run is not None else {}
    return Model(
        pretrained=str(opened.folder),
        device=opened.machine.device.type,
        dtype="float32",
        batch_size=batch,
        max_length=opened.model.shape.context,
        trust_remote_code=False,
        **begins,
    )


def _benchmark(
    task: str,
    done: Mapping[str, Any],
    opened: Opened,
    prepared: Prepared | None,
    folder: Path,
    version: str,
) -> Benchmark:
    values, errors = {}, {}
    for key, value in done["results"][task].items():
        name, _, filter_ = key.partition(",")
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            continue
        name = name if filter_ in ("none", "") else f"{name} ({filter_})"
        if name.endswith("_stderr"):
            errors[name.removesuffix("_stderr")] = float(value)
        elif filter_:
            values[name] = float(value)
    samples = done["samples"][task]
    return Benchmark(
        task=task,
        step=opened.step,
        version=str(done.get("versions", {}).get(task, "")),
        documents=len({sample["doc_id"] for sample in samples}),
        fewshot=int(done.get("n-shot", {}).get(task) or 0),
        metrics=values,
        errors=errors,
        leaked=None if prepared is None else _leaked(samples, prepared, folder / f"{task}.ds"),
        harness=f"lm-evaluation-harness {version}",
    )


def _leaked(samples: Sequence[Any], prepared: Prepared, file: Path) -> Leaked | None:
    """Look for the task's texts in what the run has read."""
    texts = list(dict.fromkeys(_text_of(sample) for sample in samples))
    vocabulary = prepared.vocabulary
    writer = ShardWriter(file, len(vocabulary))
    ids, size = 0, 0
    for text in texts:
        encoded = vocabulary.encode(text)
        ids, size = ids + len(encoded), size + len(text.encode())
        writer.add(encoded, len(text.encode()), vocabulary.end_id)
    writer.close()
    if not ids:
        return None
    stream = TokenStream([file], len(vocabulary), vocabulary.end_id)
    found = find_leaks(prepared.train, stream, size / ids)
    if found is None:
        return None
    return Leaked(found.share, found.leaked_units, found.holdout_tokens)


def _text_of(sample: Mapping[str, Any]) -> str:
    """Return a question with its right answer, as the harness put them together."""
    arguments, target = sample["arguments"], sample.get("target")
    rows = list(arguments.values()) if isinstance(arguments, dict) else list(arguments)
    right = target if isinstance(target, int) and 0 <= target < len(rows) else 0
    row = rows[right]
    parts = list(row.values()) if isinstance(row, dict) else list(row)
    return "".join(part for part in parts if isinstance(part, str))
