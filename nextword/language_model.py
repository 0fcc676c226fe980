"""A trained model that can be asked: generate, score, explain, evaluate, fine-tune, report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextword.base.display import Watchable
from nextword.base.errors import EvaluationError, RunError
from nextword.base.files import check_output, write_output
from nextword.corpus.documents import read_documents
from nextword.corpus.options import CorpusSettings
from nextword.explanation.audit import Audit, audit
from nextword.explanation.checks import Check, checks
from nextword.explanation.compare import Comparison, compare_documents, compare_text
from nextword.explanation.previews import Floor, floor_of
from nextword.explanation.replay import Replay, read_replay
from nextword.explanation.report import build_report
from nextword.explanation.ruler import Ruler, measure_ruler
from nextword.explanation.tour import gather_tour
from nextword.explanation.trace import Trace, trace
from nextword.finetune import finetune
from nextword.finetune.chat import Prompt, ask
from nextword.machine.options import MachineSettings
from nextword.model.transformer import Transformer
from nextword.objectives.options import ObjectiveSettings
from nextword.prediction.candidates import Prediction, predict
from nextword.prediction.encoded_texts import EncodedTexts
from nextword.prediction.evaluate import Documents, Evaluation, evaluate
from nextword.prediction.generate import Chosen, Reader, generate, generate_several
from nextword.prediction.labels import Said, classify
from nextword.prediction.loading import Opened, open_model, prepared_folder, run_facts
from nextword.prediction.masked import Filled, Pseudo, evaluate_masked, fill, pseudo
from nextword.prediction.options import EvaluationSettings, GenerationSettings
from nextword.prediction.scoring import Score, score
from nextword.rendering.finetuned import describe_taught
from nextword.rendering.progress import Progress
from nextword.rendering.registered import register_all
from nextword.rendering.report import report_page
from nextword.rendering.tour import stops
from nextword.rendering.tour_page import Stop
from nextword.settings import read_recipe, resolve
from nextword.vocabulary.prepared import open_prepared
from nextword.vocabulary.tokenizer import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

register_all()

TOUR_TOKENS = 40_000
"""Held-out tokens that the tour scores."""


def load(target: str | Path, *, device: str = "auto") -> "Model":
    """Open a trained model.

    Args:
        target: a run's name or path, RUN@last, RUN@500, `latest`, or a model folder.
        device: auto, cpu, cuda, xpu or mps.

    Raises:
        RunError: there is no such run or checkpoint.
        ModelError: the folder is damaged or of a kind not known here.
    """
    return Model(open_model(str(target), MachineSettings(device=device)))


def compare(
    models: Sequence["Model"],
    *,
    text: str | None = None,
    path: str | Path | None = None,
    field: str = "text",
) -> Comparison:
    """Judge the same text, or documents, by several models.

    Args:
        models: two or more.
        text: one text; or
        path: a file or folder of documents.
        field: of JSON lines or tables, that holds the text.

    Raises:
        EvaluationError: a model has no odds of words, or there is no text.
    """
    opened = [model.opened for model in models]
    for one in opened:
        one.refuse("compare")
    if path is None:
        return compare_text(opened, text or "")
    return compare_documents(opened, read_documents([str(path)], CorpusSettings(field=field)))


class Model(Watchable):
    """A trained model that can be asked."""

    def __init__(self, opened: Opened) -> None:
        """Wrap what `load` has opened."""
        self.opened = opened

    @property
    def model(self) -> Transformer:
        """The network, an `nn.Module`: ids (B, T) → logits (B, T, V)."""
        return self.opened.model

    @property
    def vocabulary(self) -> Vocabulary:
        """All the pieces it knows."""
        return self.opened.vocabulary

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer, of Hugging Face's `tokenizers`."""
        return self.opened.vocabulary.tokenizer

    def predict(self, prompt: str, top: int = 10) -> Prediction:
        """List the likeliest next tokens after a prompt."""
        self.opened.refuse("predict")
        return predict(self.opened.model, self.opened.vocabulary, prompt, top)

    @property
    def name(self) -> str:
        """What it is called: its run and step, or its folder."""
        return self.opened.name

    def explain(self, text: str, top: int = 1) -> Trace:
        """Judge a text piece by piece; in a notebook the result draws itself."""
        self.opened.refuse("explain")
        return trace(self.opened.model, self.opened.vocabulary, text, top=top, name=self.name)

    def audit(
        self, text: str, *, token: int | None = None, top: int = 5, rate: float | None = None
    ) -> Audit:
        """Take one prediction apart; in a notebook the result draws itself.

        Args:
            text: it must fit one context.
            token: which piece of it, counted from 1; default: the one that surprised most.
            top: how many of the likeliest entries to show.
            rate: of the step of training; default: the loss falls by about a hundredth.
        """
        opened = self.opened
        opened.refuse("audit")
        asked = (opened.model, opened.vocabulary, text)
        return audit(*asked, token=token, top=top, rate=rate, name=self.name)

    def score(self, text: str) -> Score:
        """Return the log-probability of each token of a text, after end-of-text.

        A masked model's are those of each token hidden alone (pseudo-log-likelihood).

        Args:
            text: any length; what is longer than the context is read in consecutive windows.

        Returns:
            ids and natural logarithms, with their sum, perplexity and bits.

        Raises:
            EvaluationError: there is no text, or the model gives no odds of words.
        """
        self.opened.refuse("score")
        return score(self.opened.model, self.opened.vocabulary, text)

    def probability(self, prompt: str, continuation: str) -> float:
        """Return P(continuation | prompt) after end-of-text, the product over its pieces."""
        self.opened.refuse("predict")
        vocabulary, reader = self.opened.vocabulary, Reader(self.opened.model)
        before = [vocabulary.begin_id, *vocabulary.encode(prompt)]
        logits, product = reader.read(before), 1.0
        for id_ in vocabulary.encode(continuation):
            product *= float(logits.cpu().double().softmax(0)[id_])
            logits = reader.read([id_])
        return product

    def generate(
        self, prompt: Prompt = "", *, stop: Sequence[str] = (), sample: int = 0, **settings: Any
    ) -> str:
        """Continue a prompt, or answer messages; settings are those of `nextword generate`."""
        return "".join(
            chosen.text for chosen in self.stream(prompt, stop=stop, sample=sample, **settings)
        )

    def generate_several(
        self, prompt: Prompt = "", samples: int = 2, *, stop: Sequence[str] = (), **settings: Any
    ) -> list[str]:
        """Continue a prompt in several ways side by side; text k is that of `sample=k`."""
        chosen, texts = GenerationSettings(samples=samples, **settings), [""] * samples
        for number, token in generate_several(*self._asked(prompt), chosen, stop=stop):
            texts[number] += "" if token is None else token.text
        return texts

    def stream(
        self, prompt: Prompt = "", *, stop: Sequence[str] = (), sample: int = 0, **settings: Any
    ) -> Iterator[Chosen]:
        """Yield the continuation token by token."""
        chosen = GenerationSettings(**settings)
        return generate(*self._asked(prompt), chosen, sample=sample, stop=stop)

    def _asked(self, prompt: Prompt) -> tuple[Transformer, Vocabulary, str | Sequence[int]]:
        """Return what writes, and what is to be continued."""
        self.opened.refuse("generate")
        given: str | Sequence[int] = prompt if isinstance(prompt, str) else []
        if not isinstance(prompt, str):
            given = ask(prompt, self.vocabulary, self.opened.chat_template)
        return self.opened.model, self.opened.vocabulary, given

    def evaluate(
        self, *paths: str | Path, corpus: CorpusSettings | None = None, **settings: Any
    ) -> Evaluation:
        """Score texts; without a path, the run's own hold-out."""
        asked = EvaluationSettings(**settings)
        self.opened.refuse("evaluate")
        texts, withheld = self._texts(paths, corpus)
        opened = self.opened
        if not opened.model.shape.causal:
            hiding = self._hiding()
            found = evaluate_masked(opened.model, texts, opened.vocabulary, asked, hiding)
        else:
            begin_id = opened.vocabulary.begin_id
            found = evaluate(opened.model, texts, asked, withheld=withheld, begin_id=begin_id)
        reading = texts.tally.as_dict() if isinstance(texts, EncodedTexts) else {}
        return replace(found, reading=reading)

    def pseudo(self, *paths: str | Path, corpus: CorpusSettings | None = None) -> Pseudo:
        """Score texts by their pseudo-log-likelihood: every token hidden alone, in turn.

        Raises:
            EvaluationError: the model predicts the next token, whose likelihood is a true one.
        """
        self.opened.refuse("evaluate")
        if self.opened.model.shape.causal:
            raise EvaluationError(
                f"{self.name}: predicts the next token, so its log-likelihood is a true one; "
                "`nextword evaluate` without --pseudo gives it"
            )
        texts, withheld = self._texts(paths, corpus)
        found = pseudo(self.model, self.vocabulary, texts)
        return replace(found, num_bytes=None) if withheld else found

    def fill(self, text: str, top: int = 10) -> tuple[Filled, ...]:
        """List what may stand at each [MASK] of a text.

        Raises:
            EvaluationError: the model has not learned to name hidden tokens.
        """
        self.opened.refuse("fill")
        return fill(self.opened.model, self.opened.vocabulary, text, top)

    def classify(self, *texts: str) -> list[Said]:
        """Say what a model that was finetuned on labels makes of texts.

        Raises:
            EvaluationError: the model gives no labels.
        """
        return classify(self.opened.labeller, self.vocabulary, texts)

    def compare(
        self, *others: "Model", text: str | None = None, path: str | Path | None = None
    ) -> Comparison:
        """Judge the same text, or documents, by this model and others.

        Args:
            others: one or more.
            text: one text; or
            path: a file or folder of documents: then it is told what could be chance.
        """
        return compare([self, *others], text=text, path=path)

    def finetune(
        self,
        *paths: str | Path,
        name: str | None = None,
        options: Mapping[str, Any] | None = None,
        from_nothing: bool = False,
        quiet: bool = True,
    ) -> "Model":
        """Teach a copy of this model from examples; this one stays as it is.

        Args:
            paths: files ending in .jsonl, .csv or .tsv.
            name: of the new run; default: the file's name and a number.
            options: {"finetune.label": "stars", …}.
            from_nothing: begin with new weights of the same sizes.
            quiet: say nothing while it learns; how right it is stands in the run's metrics.jsonl.

        Returns:
            the model that labels, or answers.
        """
        files, asked = [str(path) for path in paths], resolve(given=options)
        start = str(self.opened.folder)
        progress = Progress(quiet=quiet)
        done = finetune(
            start, files, asked, name=name, from_nothing=from_nothing, progress=progress
        )
        progress.say(describe_taught(done.folder, done.task, done.scores, done.before, done.chats))
        return load(done.folder)

    def _texts(
        self, paths: Sequence[str | Path], corpus: CorpusSettings | None
    ) -> tuple[Documents, str]:
        """Return texts in tokens, and why bits per byte would not be true of them."""
        if not paths:
            prepared = self._prepared()
            return prepared.holdout, prepared.bits_withheld
        texts = EncodedTexts(
            self.opened.vocabulary, [str(path) for path in paths], corpus or CorpusSettings()
        )
        return texts, texts.withheld

    def _hiding(self) -> ObjectiveSettings:
        """Return how the run hides tokens in evaluations."""
        if self.opened.run is None:
            return ObjectiveSettings()
        return resolve(read_recipe(self.opened.run / "settings.toml")).objective

    def replay(self) -> Replay:
        """Return how the run's pinned sentences were judged while it learned."""
        self.opened.refuse("replay")
        if self.opened.run is None:
            raise EvaluationError(
                f"{self.opened.folder}: this model belongs to no run; how it learned is not known"
            )
        return read_replay(self.opened.run)

    def ruler(self, *, primed: bool = True) -> Ruler:
        """Put the loss on one scale with guessing, counting, compressors and what is possible.

        Args:
            primed: measure compressors also after they have read the training text; takes longer.
        """
        self.opened.refuse("ruler")
        return self._ruler(self.evaluate(), primed=primed)

    def _ruler(self, scores: Evaluation, *, primed: bool = True) -> Ruler:
        floor, prepared = self.floor(scores), self._prepared()
        nats = None if floor is None else floor.nats_per_token * scores.tokens
        return measure_ruler(prepared, scores, model=self.name, floor_nats=nats, primed=primed)

    def checks(self) -> Iterator[Check]:
        """Compute the run's figures again in other ways, one by one, and compare."""
        return checks(self.opened, self._prepared())

    def tour(self) -> list[Stop]:
        """Return the stops through the ideas, with this model's numbers."""
        self.opened.refuse("tour")
        run = self.opened.run
        corpus = {} if run is None else run_facts(run).get("corpus", {})
        train_tokens, score = corpus.get("train_tokens"), self._score_a_part if corpus else None
        name = str(self.opened.folder) if run is None else run.name
        return stops(gather_tour(self.opened, name, train_tokens, score))

    def _score_a_part(self) -> Evaluation:
        prepared = self._prepared()
        return evaluate(
            self.opened.model,
            prepared.holdout,
            EvaluationSettings(),
            max_tokens=TOUR_TOKENS,
            withheld=prepared.bits_withheld,
            count_bytes=self.vocabulary.count_bytes,
        )

    def report(self, file: str | Path, *, force: bool = False) -> None:
        """Write the run's whole story as one HTML file that needs no network.

        Args:
            file: one that is there is replaced with `force` only.
            force: replace it.

        Raises:
            RunError: the model belongs to no run, or the file cannot be written.
        """
        check_output(Path(file), force=force)
        self.opened.refuse("report")
        if self.opened.run is None:
            raise RunError(f"{self.opened.folder}: a model folder alone has no report; name a run")
        scores = self.evaluate()
        ruler = None if "ruler" in self.opened.objective.cannot else self._ruler(scores)
        page = report_page(build_report(self.opened, self._prepared(), scores, ruler))
        write_output(Path(file), page, force=force)

    def floor(self, scores: Evaluation) -> Floor | None:
        """Return the lowest loss possible on the run's own hold-out, where it is known."""
        if scores.at_hidden:
            return None
        return floor_of(self._prepared(), scores)

    def _prepared(self) -> Any:
        if self.opened.run is None:
            raise EvaluationError(
                f"{self.opened.folder}: no hold-out of its own; name a run, or a text to score"
            )
        facts = run_facts(self.opened.run)
        if "task" in facts:
            raise EvaluationError(
                f"{self.name}: learned from examples and has no held-out text; name one to score"
            )
        return open_prepared(prepared_folder(self.opened.run, facts))
