"""Warm start: initialize a run's weights and vocabulary from a checkpoint or a model folder."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nextword.base.errors import ModelError, SettingsError
from nextword.model.config import CONFIG, read_config
from nextword.model.folder import read_model, read_shape
from nextword.model.layouts import labels_of
from nextword.model.shape import ModelSettings, Shape
from nextword.objectives import Objective, find_objective
from nextword.objectives.options import ObjectiveSettings
from nextword.prediction.loading import find_model_folder
from nextword.settings import Settings
from nextword.training.plan import LONGEST_CONTEXT, fitting_context
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.tokenizer import Vocabulary


@dataclass(frozen=True)
class WarmStart:
    """A model whose weights and vocabulary a run goes on with."""

    folder: Path
    shape: Shape
    settings: Settings
    """Those asked for, with what the folder decides."""
    weights: Mapping[str, Tensor]

    def fit(self, model: ModelSettings, train_tokens: int) -> Shape:
        """Return the sizes to train with: the folder's own, in a context that the text fills.

        Args:
            model: may name a context.
            train_tokens: in the training part.
        """
        longest = min(self.shape.context, LONGEST_CONTEXT)
        chosen = model.context or fitting_context(longest, train_tokens)
        return dataclasses.replace(self.shape, context=chosen)


def objective_for_text(settings: ObjectiveSettings) -> Objective:
    """Find the objective to train with on text.

    Raises:
        SettingsError: there is none of this name, or it learns from examples.
    """
    objective = find_objective(settings.name)
    if objective.supervised:
        raise SettingsError(
            f"objective.name = {settings.name!r} learns from examples that a person prepared, not "
            "from text; use `nextword finetune RUN FILE`"
        )
    return objective


def find_warm_start(start: str, settings: Settings) -> WarmStart:
    """Find what to begin with, and check that what was asked for fits it.

    Args:
        start: a run, RUN@500 or a model folder.
        settings: asked for.

    Raises:
        RunError: there is no such run.
        ModelError: the folder is of another kind.
        SettingsError: an option contradicts the folder.
    """
    if find_objective(settings.objective.name).supervised:
        objective_for_text(settings.objective)  # says what to use instead
    folder = find_model_folder(start)[0]
    shape, config = read_shape(folder), read_config(folder)
    if labels_of(config, folder / CONFIG) is not None:
        raise ModelError(
            f"{folder / CONFIG}: architectures = {config.architecture}, whose head gives "
            "labels, not words; begin with the model that it was finetuned from"
        )
    _refuse_other_sizes(start, shape, settings.model)
    if settings.vocabulary != VocabularySettings():
        raise SettingsError(
            f"--from {start} brings its own vocabulary; leave out the options of vocabulary"
        )
    attention = find_objective(settings.objective.name).attention
    if (attention == "before") != shape.causal:
        fitting = "causal" if shape.causal else "masked"
        if settings.objective.name != ObjectiveSettings().name:
            raise SettingsError(
                f"objective.name = {settings.objective.name!r}: {start} was built for the "
                f"objective {fitting!r}, and its attention cannot be turned around"
            )
        objective = dataclasses.replace(settings.objective, name=fitting)
        settings = dataclasses.replace(settings, objective=objective)
    known = Vocabulary.load(folder)
    if not shape.causal and known.mask_id is None:
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: no mask_token, and a masked model needs an entry "
            "that stands for what is hidden"
        )
    entries = len(known)
    if entries > shape.vocab_size:
        raise ModelError(
            f"{folder / CONFIG}: vocab_size = {shape.vocab_size:,}, and the vocabulary beside it "
            f"has {entries:,} entries"
        )
    vocabulary = VocabularySettings(source=str(folder), as_it_is=True)
    settings = dataclasses.replace(settings, vocabulary=vocabulary)
    return WarmStart(folder, shape, settings, read_model(folder).state_dict())


def _refuse_other_sizes(start: str, shape: Shape, model: ModelSettings) -> None:
    """Refuse sizes that are asked for and are not the folder's."""
    known = {**dataclasses.asdict(shape), "depth": shape.num_hidden_layers}
    for field in dataclasses.fields(model):
        asked = getattr(model, field.name)
        if field.name == "context" or asked == field.default or known[field.name] == asked:
            continue
        raise SettingsError(
            f"model.{field.name} = {asked}: {start} has {known[field.name]}; with --from only "
            "--model.context can be chosen"
        )
