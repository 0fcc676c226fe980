"""Preference tuning (DPO): prompts with two answers each, of which a person preferred one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nextword.base.errors import CorpusError, RunError
from nextword.base.files import digest_of_file
from nextword.corpus.examples import Row
from nextword.finetune.answers import divide, in_tokens
from nextword.finetune.chat import spell
from nextword.finetune.kinds import read_list
from nextword.finetune.shapes import TWO_ANSWERS, Example, Pair, read_messages, text_of
from nextword.finetune.supervised import Rows, Start, Supervised
from nextword.finetune.tally import Tally, Unusable
from nextword.model.config import CONFIG
from nextword.model.folder import read_model, weight_files
from nextword.model.transformer import Transformer
from nextword.objectives.labelled import in_order
from nextword.objectives.options import FinetuneSettings
from nextword.objectives.preference import Preference, prefer
from nextword.objectives.preference import Preferences as Batch
from nextword.prediction.preferences import (
    PreferenceScores,
    answer_log_probabilities,
    log_probabilities,
    score_preferences,
)
from nextword.run import Run
from nextword.vocabulary.tokenizer import Vocabulary

CHOSEN, REJECTED = "chosen", "rejected"
"""Fields of a row; `shapes.TWO_ANSWERS`."""


class PreferenceLoss(nn.Module):
    """A network and DPO's loss: −log σ(β·(how much likelier, beside the reference))."""

    def __init__(self, model: Transformer, beta: float, precision: torch.dtype) -> None:
        """Join them.

        Args:
            model: the network.
            beta: β, how dear it is to leave the reference.
            precision: of the matrix products.
        """
        super().__init__()
        self.model, self.beta, self.precision = model, beta, precision

    def forward(self, inputs: Tensor, targets: Tensor, reference: Tensor) -> Tensor:
        """Return the loss of pairs of rows (2P, T), summed over the pairs, in nats."""
        said = answer_log_probabilities(self.model, inputs, targets, self.precision)
        chosen, rejected = said[0::2], said[1::2]
        return -F.logsigmoid(self.beta * (chosen - rejected - reference)).sum()


class Preferences(Supervised):
    """Learn which of two answers a person preferred, without leaving the reference far."""

    scores: PreferenceScores | None = None

    def __init__(
        self,
        start: Start,
        vocabulary: Vocabulary,
        tally: Tally,
        pairs: Sequence[Preference],
        settings: FinetuneSettings,
    ) -> None:
        """Divide the pairs.

        Args:
            start: the model to begin with, which is the reference too.
            vocabulary: of the model.
            tally: of the rows read.
            pairs: as `read_preferences` makes them.
            settings: how.

        Raises:
            CorpusError: too few for two sides.
        """
        super().__init__(start, vocabulary, "preferences", tally)
        self.beta, self.seed = settings.beta, settings.seed
        self.train, self.holdout = divide(pairs, lambda pair: pair.chosen.prompt, settings)
        self.learned, self.held = len(self.train), len(self.holdout)
        longest = max(pair.places for pair in self.train)
        tokens = sum(sum(one.places for one in pair) for pair in self.train) / self.learned
        a_step = max(1, min(self.learned, settings.batch_examples))
        self.rows = Rows(a_step, 2 * longest, tokens, self.learned)
        self.reference = self.held_reference = np.zeros((0, 2), dtype=np.float32)

    def facts(self) -> Mapping[str, Any]:
        """Return which examples these are, and beside which model they are learned."""
        return {**super().facts(), "reference": self.reference_digests()}

    def reference_digests(self) -> dict[str, str]:
        """Return digests of the weights that this begins with."""
        return {file.name: digest_of_file(file) for file in weight_files(self.start.folder)}

    def model(self, run: Run) -> Transformer:
        """Return the model that it begins with, or the run's own; the first is asked once for all.

        Raises:
            RunError: a run is to go on and the model that it began with is gone.
        """
        if run.saved is not None and self.start.folder == run.saved.folder:
            raise RunError(
                f"{run.folder.name}: the model that it began with, beside which preferences are "
                f"learned, has no {CONFIG} where it was any more; bring it back"
            )
        told = self.start.resumed.facts.get("reference") if self.start.resumed else None
        if told is not None and told != self.reference_digests():
            raise RunError(
                f"{run.folder.name}: the model that it began with, beside which preferences are "
                f"learned ({self.start.folder}), is another now; bring its weights back"
            )
        model = read_model(self.start.folder)
        model.to(run.machine.device)
        # Each as it is compared: the hold-out in float32, the others as training computes.
        self.held_reference = self._ask(model, self.holdout, torch.float32)
        model.set_precision(run.machine.precision)
        self.reference = self._ask(model, self.train, run.machine.precision)
        if run.saved is not None:
            model.load_state_dict(read_model(run.saved.folder).state_dict())
        model.set_precision(run.machine.precision)
        return model

    def _ask(
        self, model: Transformer, pairs: Sequence[Preference], precision: torch.dtype
    ) -> NDArray[np.float32]:
        asked = [one for pair in pairs for one in pair]
        return log_probabilities(model, asked, self.fill_id, precision).reshape(-1, 2)

    def loss(self, run: Run, model: Transformer) -> nn.Module:
        """Return DPO's."""
        return PreferenceLoss(model, self.beta, run.machine.precision)

    def read(self, step: int, rows: slice) -> Batch:
        """Return some pairs."""
        chosen = in_order(self.learned, self.rows.number, step, self.seed)[rows]
        reference = self.reference[chosen, 0] - self.reference[chosen, 1]
        return prefer([self.train[one] for one in chosen.tolist()], reference, self.fill_id)

    def score(self, model: Transformer) -> PreferenceScores | None:
        """Score the pairs held out."""
        if not self.holdout:
            return None
        held = (self.holdout, self.held_reference, self.beta, self.fill_id)
        return score_preferences(model, *held)


def read_preferences(
    rows: Sequence[Row],
    vocabulary: Vocabulary,
    settings: FinetuneSettings,
    context: int,
    tally: Tally,
) -> list[Preference]:
    """Turn rows with two answers into tokens.

    Args:
        rows: with the fields chosen and rejected: texts or lists of messages, after what stands in
            the field of the prompt, or each with the prompt that they share at its beginning.
        vocabulary: of the model.
        settings: names of the fields.
        context: the most tokens of an example; what is longer is left out, or refused.
        tally: counts what is left out.

    Raises:
        CorpusError: too many rows are unusable, one is too long and that is to be refused, or
            nothing is left.
    """
    found, chats, marked = [], [], vocabulary.marks is not None
    for row in rows:
        try:
            chosen, rejected = _both(row.values, settings.prompt)
        except Unusable as error:
            tally.leave(row.place, error)
            continue
        chats.append(isinstance(chosen, list))
        pair = Preference(
            *(in_tokens(spell(one, marked=marked), vocabulary) for one in (chosen, rejected))
        )
        if pair.places <= context:
            found.append(pair)
            continue
        if tally.longest is None or pair.places > tally.longest[1]:
            tally.longest = row.place, pair.places
        words = f"{pair.places:,} tokens, and the model reads {context:,} at once"
        if tally.settings.too_long == "refuse":
            raise CorpusError(f"{row.place}: {words}; shorten it, or --examples.too-long drop")
        tally.leave(row.place, Unusable("too_long", words))
    tally.check()
    if not found:
        raise CorpusError(f"none of the {len(rows):,} pairs fits into {context:,} tokens")
    tally.chats = all(chats)
    return found


def _both(values: Mapping[str, Any], field: str) -> tuple[Example, Example]:
    """Read a row's prompt with each of its answers.

    Raises:
        Unusable: they are no texts or messages, are the same, or share no beginning where no field
            holds the prompt.
    """
    if lacking := sorted(TWO_ANSWERS - values.keys()):
        raise Unusable("unknown_shape", f"no field {lacking[0]!r}, only {', '.join(values)}")
    chosen, rejected = (read_list(values[name]) for name in (CHOSEN, REJECTED))
    if chosen == rejected:
        raise Unusable("damaged", "the preferred answer and the other are the same")
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _both_chats(values.get(field), chosen, rejected)
    texts = [text_of(values[name], name, "empty_answer") for name in (CHOSEN, REJECTED)]
    prompt = values.get(field)
    if prompt is None:
        prompt = _shared(*texts)
        texts = [text[len(prompt) :] for text in texts]
        if not all(text.strip() for text in texts):
            raise Unusable("empty_answer", "one of the two answers is the beginning of the other")
    given = text_of(prompt, field, "empty_prompt")
    return Pair(given, texts[0]), Pair(given, texts[1])


def _both_chats(prompt: Any, chosen: Any, rejected: Any) -> tuple[Example, Example]:
    turns = [read_messages(part, name) for part, name in ((chosen, CHOSEN), (rejected, REJECTED))]
    if prompt is None:
        same = 0
        while same < min(map(len, turns)) and turns[0][same] == turns[1][same]:
            same += 1
        before, turns = turns[0][:same], [part[same:] for part in turns]
    else:
        given = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        before = read_messages(given, "prompt")
        turns = [
            part[len(before) :] if part[: len(before)] == before else part for part in turns
        ]  # some write the prompt beside and within
    before = [turn._replace(learned=False) for turn in before]
    if not before:
        raise Unusable("empty_prompt", "the two conversations share no beginning")
    for part in turns:
        if not part or part[-1].role != "assistant":
            raise Unusable("ends_unanswered", "a conversation does not end with the assistant")
    return [*before, *turns[0]], [*before, *turns[1]]


def _shared(one: str, two: str) -> str:
    """Return the beginning that two texts share, up to the last word that both have whole."""
    most = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
    shared = one[:most] if most is not None else min(one, two, key=len)
    cut = max((shared.rfind(space) for space in " \n"), default=-1)
    if cut <= 0:
        raise Unusable("empty_prompt", 'no field "prompt", and the two answers share no beginning')
    return shared[:cut]
