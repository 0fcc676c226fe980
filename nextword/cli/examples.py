"""Examples of each verb: in its help and in the manual page; the suite runs them."""

from typing import NamedTuple

from cyclopts import App


class Example(NamedTuple):
    """A command, and what it is for."""

    does: str
    command: str
    """What follows `nextword`."""


EXAMPLES = {
    "attention": [
        Example("see where each head looks", 'attention latest "We are all humans born to make"'),
        Example(
            "draw one head's map, and write all as a page",
            'attention latest "We are all humans" --head 2.1 -o heads.html --force',
        ),
    ],
    "audit": [
        Example(
            "take one prediction apart, and take one step of training on a copy",
            'audit latest "We are all humans born to make mistakes" --token 7',
        )
    ],
    "benchmark": [
        Example(
            "ask fifty of its own stories by lm-evaluation-harness",
            "benchmark latest --tasks nextword_stories --limit 50",
        )
    ],
    "chat": [Example("talk with a model that was taught to answer", "chat latest")],
    "check": [Example("compute a run's numbers again in other ways", "check latest")],
    "classify": [
        Example("say a text's label", 'classify labels-1 "Maria was a kind pianist from Weston."')
    ],
    "compare": [
        Example("judge the same text by two models", 'compare latest stories-1 "We are all humans"')
    ],
    "completion": [Example("let Tab complete verbs and options in bash", "completion bash")],
    "compress": [
        Example("pack a file into as few bits as the loss says", "compress latest book.txt -o b.nw")
    ],
    "decompress": [
        Example("get it back, byte for byte", "decompress latest b.nw -o again.txt --force")
    ],
    "evaluate": [
        Example("score the run's own hold-out", "evaluate latest"),
        Example("score another text, as JSON", "evaluate latest book.txt --json"),
    ],
    "explain": [
        Example("judge a text piece by piece", 'explain latest "We are all humans born to make"')
    ],
    "export": [
        Example("for llama.cpp, Ollama and LM Studio", "export latest --to gguf -o a.gguf --force"),
        Example("for onnxruntime and pages", "export latest --to onnx -o in-onnx --force"),
    ],
    "fill": [
        Example(
            "guess a hidden word with both sides in sight",
            'fill both "We are all humans born to [MASK] mistakes"',
        )
    ],
    "finetune": [
        Example("teach labels", "finetune stories-1 labels.csv"),
        Example(
            "teach a large model on a small machine",
            "finetune stories-1 labels.csv --finetune.lora-rank 8",
        ),
    ],
    "generate": [
        Example("write a story", 'generate latest "Long ago" --seed 1'),
        Example("show each choice", 'generate latest "Long ago, a" --show --max-tokens 5'),
    ],
    "look": [Example("see what would be read, before training on it", "look book.txt")],
    "plan": [
        Example(
            "divide a network of 6.7 thousand million weights among 256 cards",
            "plan --model.depth 32 --model.hidden-size 4096 --devices 256",
        ),
        Example("the same for a model that is there", "plan latest --devices 8 --device h200"),
    ],
    "predict": [
        Example("say what comes next", 'predict latest "We are all humans born to" --top 5')
    ],
    "prepare": [Example("turn text into shards once, for many runs", "prepare book.txt -o shards")],
    "push": [
        Example("write what would go to the Hub, and send nothing", "push latest me/it -o pushed")
    ],
    "replay": [Example("see sentences at step 0, on the way and at the end", "replay latest")],
    "report": [
        Example("write a run's whole story as one page", "report latest -o report.html --force")
    ],
    "ruler": [Example("put the loss beside counting and compressors", "ruler latest")],
    "runs": [Example("list the runs", "runs")],
    "serve": [Example("answer as OpenAI's endpoints do", "serve latest --port 8000")],
    "settings": [
        Example("say what an option does, and where its default is from", "settings model.depth")
    ],
    "targets": [
        Example("show the lessons that a text gives itself", 'targets "We are all humans"')
    ],
    "tour": [
        Example("walk through the ideas", "tour latest"),
        Example("show one of them", "tour latest --stop 3"),
    ],
    "track": [Example("tell TensorBoard of a run", "track latest --to tensorboard")],
    "train": [
        Example("learn the built-in stories", "train"),
        Example("learn a text of your own in ten minutes", "train book.txt --minutes 10"),
        Example("say what that would take and come to", "train book.txt --dry-run"),
        Example("go on with a run", "train --resume latest"),
    ],
    "vocabulary": [Example("take a text apart", 'vocabulary latest "We are all humans"')],
    "watch": [Example("see a run learn, in a browser", "watch latest --port 8001")],
}
"""By verb. `latest` is the run that was made last; `book.txt` and the like are yours."""


ORDER = (
    *("train", "finetune", "prepare", "plan"),
    *("generate", "predict", "chat", "evaluate", "fill", "classify", "benchmark"),
    *("explain", "compare", "audit", "attention", "replay", "ruler", "report", "tour"),
    *("runs", "look", "vocabulary", "targets", "settings", "check"),
    *("compress", "decompress", "serve", "watch", "export", "push", "track"),
    *("--help", "--version", "completion"),
)
"""In which verbs stand in the help: what people begin with first."""


def show_examples(app: App) -> None:
    """Put each verb's examples below its help, and the verbs in their order."""
    for place, name in enumerate(ORDER):
        app[name].sort_key = place
    for verb, examples in EXAMPLES.items():
        lines = [f"  # {one.does}\n  nextword {one.command}" for one in examples]
        app[verb].help_epilogue = "\n".join(["Examples:", *lines])
