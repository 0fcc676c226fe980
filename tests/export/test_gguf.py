"""GGUF, read by llama.cpp itself: the same ids, the same odds, the same words."""

import contextlib
import json
import math
import random

import httpx
import pytest
import torch

from nextword.base.errors import EvaluationError, RunError, VocabularyError
from nextword.evals.tasks import OWN
from nextword.export.gguf import write_gguf
from nextword.finetune.chat import ask, template_for
from nextword.model.folder import Snapshot
from nextword.model.initialize import initialize
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.loading import open_model
from nextword.training.checkpoint import add_chat_template, write_folder
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import train_vocabulary
from tests.compared import near

xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is for x86-64")

ALPHABETS = (
    "abcdefghij ABC ,.!? '\"-()", "0123456789 .,:%", "\n\t  \r", "äöüßéèñçøåł Œ", "абвгдежз ЖЮ",
    "αβγδ ΩΨ", "אבגד ", "ابتثج ", "हिन्दी क्षत्रि ", "ไทยก็ ", "中文字词。，", "ひらカタ漢字",
    "한국어 ", "🙂👩‍👩‍👧🇩🇪 ", "{}[];:=+-*/<>_#@\\", "\u0301\u200b\ufeff\u00a0 é",
)  # fmt: skip
WORDS = [
    "I'll", "they've", "DON'T", "it's", "we're", "one", "two", "<|endoftext|>", "<|pad|>",
    "[unused5]",
]  # fmt: skip


def texts(many, seed=0):
    """Texts of many scripts, alone and mixed, words and blanks of every kind among them."""
    dice = random.Random(seed)
    for _ in range(many):
        parts = []
        for _ in range(dice.randrange(1, 6)):
            letters = dice.choice(ALPHABETS)
            parts.append("".join(dice.choice(letters) for _ in range(dice.randrange(1, 12))))
            parts.append(dice.choice(["", " ", "  ", "\n", "\n\n", dice.choice(WORDS)]))
        yield "".join(parts)


class Reading:
    """llama.cpp with a file of ours."""

    def __init__(self, server):
        self.client = httpx.Client(base_url=server.listening_address, timeout=60)

    def post(self, path, **body):
        answered = self.client.post(path, json=body)
        assert answered.status_code == 200, answered.text
        return answered.json()

    def ids(self, text, **body):
        return self.post("/tokenize", content=text, parse_special=False, **body)["tokens"]

    def next(self, ids, top):
        """Return the likeliest token after some, and the odds of so many.

        One at a time: of several its server withholds those that end inside of a character.
        """
        found = self.post(
            "/completion", prompt=ids, n_predict=1, temperature=0, n_probs=top, cache_prompt=False
        )
        (entry,) = found["completion_probabilities"]
        return entry


@contextlib.contextmanager
def llama(file, context):
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup = context, 1, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # f16 if unsaid
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    reading = Reading(server)
    try:
        yield reading
    finally:
        reading.client.close()
        del server


def made(folder, kind="bpe", pattern="qwen2", marked=False, **sizes):
    """A model folder of first weights, large enough that odds differ, and its vocabulary."""
    settings = VocabularySettings(kind=kind, size=700, pattern=pattern)
    vocabulary = train_vocabulary(list(texts(400, seed=1)), 10_000, settings)
    vocabulary = vocabulary.with_marks() if marked else vocabulary
    usual = {
        "vocab_size": len(vocabulary), "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "context": 64, "rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "qk_norm": True,
        "tie_word_embeddings": True, "causal": True,
    }  # fmt: skip
    model = Transformer(Shape(**{**usual, **sizes}))
    initialize(model, 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
        # Never the likeliest: of the end of a text, and of parts of characters, llama.cpp's server
        # tells no odds.
        head = model.model.embed_tokens if model.shape.tie_word_embeddings else model.lm_head
        for id_ in range(len(vocabulary)):
            if not vocabulary.piece_bytes(id_).decode(errors="ignore"):
                head.weight[id_] *= 0.01
    folder.mkdir()
    write_folder(folder, Snapshot.of(model), vocabulary)
    return open_model(str(folder))


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [("bpe", "qwen2"), ("bpe", "llama3"), ("bpe", "gpt2"), ("byte", "qwen2"), ("char", "qwen2")],
)
def test_the_ids_of_a_thousand_texts_are_the_same(tmp_path, kind, pattern):
    opened = made(tmp_path / "it", kind, pattern)
    done = write_gguf(opened, tmp_path / "it.gguf", "f32")
    assert done.loses_unknown == (kind == "char")
    known = set("".join(texts(400, seed=1)))
    with llama(done.file, 64) as reading:
        for text in texts(1000):
            if kind == "char":
                text = "".join(letter for letter in text if letter in known)
            assert reading.ids(text) == opened.vocabulary.encode(text), repr(text)
        assert reading.ids("a", add_special=True) == [opened.vocabulary.begin_id, *reading.ids("a")]


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"tie_word_embeddings": False},
        {"head_dim": 32},  # wider in all than the network
        {"qk_norm": False},
        {"qk_norm": False, "tie_word_embeddings": False, "num_key_value_heads": 1, "head_dim": 32},
        {"rope_theta": 500.0, "rms_norm_eps": 1e-3},
    ],
    ids=["qwen3", "untied", "wide heads", "llama", "llama untied", "other constants"],
)
def test_twenty_greedy_tokens_and_their_odds_are_the_same(tmp_path, sizes):
    opened = made(tmp_path / "it", **sizes)
    file = write_gguf(opened, tmp_path / "it.gguf", "f32").file
    ids = [opened.vocabulary.begin_id, *opened.vocabulary.encode("one two  \u00e9 three")]
    with llama(file, 64) as reading:
        for _ in range(20):
            expected = log_odds(opened, ids)
            entry = reading.next(ids, 5)
            assert entry["id"] == int(expected.argmax())
            for likely in entry["top_logprobs"]:
                ours = float(expected[likely["id"]])
                near("llama.cpp, log-probabilities of f32", ours, likely["logprob"], most=1e-4)
            ids.append(entry["id"])


def log_odds(opened, ids):
    with torch.no_grad():
        return opened.model(torch.tensor([ids]))[0, -1].double().log_softmax(-1)


@pytest.mark.parametrize(("kind", "within"), [("f16", 1e-3), ("bf16", 5e-3), ("q8_0", 5e-3)])
def test_smaller_types_move_the_loss_little(tmp_path, shared, small_run, kind, within):
    opened = open_model(str(shared.folder / "runs" / small_run))
    done = write_gguf(opened, tmp_path / "it.gguf", kind)
    assert done.bytes < 0.56 * 4 * sum(w.numel() for w in opened.model.parameters()) + 200_000
    assert done.wider == 0
    held_out = list(OWN["nextword_holdout"](opened))[: 12 if kind == "q8_0" else 3]
    ours, theirs = [], []
    with llama(done.file, 64) as reading:
        for text in held_out:
            ids = [opened.vocabulary.begin_id, *opened.vocabulary.encode(text)][:24]
            for end in range(1, len(ids)):
                entry = reading.next(ids[:end], opened.model.shape.vocab_size)
                found = {one["id"]: one["logprob"] for one in entry["top_logprobs"]}
                theirs.append(found[ids[end]])
                ours.append(float(log_odds(opened, ids[:end])[ids[end]]))
    assert len(ours) > (150 if kind == "q8_0" else 30)
    perplexities = (math.exp(-math.fsum(some) / len(some)) for some in (ours, theirs))
    near(f"llama.cpp, perplexity of {kind}", *perplexities, most=within, relative=True)


@pytest.mark.parametrize("marked", [True, False])
def test_it_ends_where_a_text_or_a_turn_does(tmp_path, marked):
    """Where the likeliest is an end, llama.cpp writes no further; where it is not, it does."""
    opened = made(tmp_path / "it", marked=marked)
    words = opened.vocabulary
    ends = {words.end_id, *((words.marks.end,) if marked else ())}
    file = write_gguf(opened, tmp_path / "it.gguf", "f32").file
    prompt = [words.begin_id, *words.encode("one two")]
    asked = {"prompt": prompt, "n_predict": 8, "temperature": 0, "cache_prompt": False}
    with llama(file, 64) as reading:
        for end in ends:
            done = reading.post("/completion", **asked, logit_bias=[[end, 100.0]])
            assert (done["stop_type"], done["tokens_predicted"]) == ("eos", 1)
            assert done["content"] == ""
        role = words.marks.roles["user"] if marked else words.encode("one")[0]
        done = reading.post("/completion", **asked, logit_bias=[[role, 100.0]])
        assert (done["stop_type"], done["tokens_predicted"]) == ("limit", 8)


@pytest.mark.parametrize("marked", [True, False])
def test_a_chat_is_written_down_as_it_was_taught(tmp_path, marked):
    opened = made(tmp_path / "it", marked=marked)
    add_chat_template(opened.folder, template_for(opened.vocabulary))
    messages = [
        {"role": "system", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "we're"},
    ]
    file = write_gguf(opened, tmp_path / "it.gguf", "f32").file
    with llama(file, 64) as reading:
        prompt = reading.post("/apply-template", messages=messages)["prompt"]
        told = {"content": prompt, "add_special": True, "parse_special": True}
        ids = reading.post("/tokenize", **told)["tokens"]
        asked = {"messages": messages, "max_tokens": 1}
        counted = reading.post("/v1/chat/completions", **asked)["usage"]["prompt_tokens"]
    assert ids == [opened.vocabulary.begin_id, *ask(messages, opened.vocabulary)]
    assert counted == len(ids)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "word"])
def test_vocabularies_that_llama_cpp_has_not_are_refused(tmp_path, kind):
    opened = made(tmp_path / "it", kind)
    with pytest.raises(VocabularyError, match=rf"{kind}.*; export .* bpe, byte or char"):
        write_gguf(opened, tmp_path / "it.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


def test_models_that_do_not_write_are_refused(tmp_path):
    opened = made(tmp_path / "it", causal=False, qk_norm=False)
    with pytest.raises(EvaluationError, match="no `export` of a model of the objective 'masked'"):
        write_gguf(opened, tmp_path / "it.gguf")


def test_files_that_are_there_are_kept_and_what_is_half_written_goes(tmp_path, monkeypatch):
    opened = made(tmp_path / "it")
    for name in ("it.gguf", "it.gguf.Modelfile"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(RunError, match="exists already"):
            write_gguf(opened, tmp_path / "it.gguf")
        (tmp_path / name).unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    import gguf

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(RunError, match="No space left"):
        write_gguf(opened, tmp_path / "it.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_the_command_says_what_it_made(place, shared, small_run):
    run = shared.folder / "runs" / small_run
    done = place.nextword("export", str(run), "--type", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "small.gguf:" in done.stdout
    assert "ollama create small -f small.gguf.Modelfile" in done.stdout
    assert "f16" not in done.stderr  # rows of all default widths divide by 32
    odd = made(place.folder / "odd", intermediate_size=100)
    done = place.nextword("export", str(odd.folder), "--type", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "f16: q8_0 takes rows that divide" in done.stderr
    told = (place.folder / "small.gguf.Modelfile").read_text()
    assert told.startswith("FROM ./small.gguf\n")
    again = place.nextword("export", str(run))
    assert again.returncode == 2
    assert "small.gguf: exists already" in again.stderr


def test_a_folder_from_elsewhere_keeps_its_template_its_beginning_and_its_ends(tmp_path):
    """As transformers saves them now: the template in a file of its own, no begin token."""
    import gguf

    folder = made(tmp_path / "it", marked=True).folder
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    template = "{% for message in messages %}[{{ message.content }}]{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    for at_beginning in (True, False):
        said = {**config, "chat_template": [], **({} if at_beginning else {"add_bos_token": False})}
        file.write_text(json.dumps(said))
        opened = open_model(str(folder))
        done = write_gguf(opened, tmp_path / f"{at_beginning}.gguf")
        fields = gguf.GGUFReader(done.file).fields
        assert fields["tokenizer.chat_template"].contents() == template
        assert fields["tokenizer.ggml.add_bos_token"].contents() is at_beginning
        assert fields["tokenizer.ggml.eot_token_id"].contents() == opened.vocabulary.marks.end


def test_ollama_is_told_of_the_context_the_turns_and_their_ends(tmp_path):
    opened = made(tmp_path / "it", marked=True)
    add_chat_template(opened.folder, template_for(opened.vocabulary))
    told = write_gguf(open_model(str(opened.folder)), tmp_path / "it.gguf").modelfile.read_text()
    assert told.splitlines() == [
        "FROM ./it.gguf",
        'TEMPLATE """{{ range .Messages }}<|{{ .Role }}|> {{ .Content }}<|end|>{{ end }}'
        '<|assistant|>"""',
        "PARAMETER num_ctx 64",
        'PARAMETER stop "<|endoftext|>"',
        'PARAMETER stop "<|end|>"',
    ]


def test_a_model_of_the_hub_is_called_as_there(place):
    folder = place.folder / "models--me--stories" / "snapshots" / ("0" * 40)
    folder.parent.mkdir(parents=True)
    made(folder)
    done = place.nextword("export", str(folder))
    assert done.returncode == 0, done.stderr
    assert (place.folder / "stories.gguf").is_file()
    assert "ollama create stories -f stories.gguf.Modelfile" in done.stdout
