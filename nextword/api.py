"""The Python API: `nextword.train`, with the reach of the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextword import pretrain
from nextword.finetune import resume as resume_finetuning
from nextword.language_model import Model, load
from nextword.prediction.loading import learned_from_examples
from nextword.rendering.progress import Progress
from nextword.settings import read_recipe, resolve


def train(
    *paths: str | Path,
    name: str | None = None,
    recipe: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    resume: str | None = None,
    start: str | Path | None = None,
    quiet: bool = True,
) -> "Model":
    """Train a model on text, or go on with a run.

    Args:
        paths: files, folders or globs; none for a built-in corpus.
        name: of the run; default: the corpus's name and a number.
        recipe: a TOML file of options.
        options: {"training.steps": 100, …}; overrule the recipe.
        start: a run or model folder whose weights and vocabulary to begin with.
        resume: a run to go on with; of the options only training.steps counts.
        quiet: say nothing while it trains.

    Returns:
        the trained model, its best checkpoint by hold-out.

    Raises:
        NextwordError: with one clear line, where the input is wrong.
    """
    progress, steps = Progress(quiet=quiet), (options or {}).get("training.steps")
    if resume is not None and learned_from_examples(resume):
        return load(str(resume_finetuning(resume, steps=steps, progress=progress).folder))
    if resume is not None:
        run = pretrain.resume(resume, steps=steps, progress=progress)
    else:
        settings = resolve(read_recipe(Path(recipe)) if recipe else None, options)
        start = None if start is None else str(start)
        run = pretrain.train(
            [str(path) for path in paths], settings, name=name, start=start, progress=progress
        )
    return load(str(run.folder))
