"""How a model is used in five libraries, as its card shows it."""

_TRANSFORMERS = """\
With [transformers](https://github.com/huggingface/transformers), whose scores are the maker's:
"""
_NEXTWORD = """\
With [nextword](https://pypi.org/project/nextword/), which made it and explains what it does:
"""
_GGUF = """\
With [llama.cpp](https://github.com/ggml-org/llama.cpp) or Ollama:

```console
$ nextword export {repository} --to gguf
$ llama-cli -m {name}.gguf -p "Once"
```
"""
_ONNX_CAUSAL = """\
With [onnxruntime](https://onnxruntime.ai) or Transformers.js:

```console
$ nextword export {repository} --to onnx
```
"""
_ONNX = """\
With [onnxruntime](https://onnxruntime.ai):

```console
$ nextword export {repository} --to onnx
```

```python
import onnxruntime
from transformers import AutoTokenizer

words = AutoTokenizer.from_pretrained("{repository}")("a text", return_tensors="np")
session = onnxruntime.InferenceSession("{name}-onnx/onnx/model.onnx")
names = [one.name for one in session.get_inputs()]
session.run(["logits"], {{name: words[name] for name in names}})
```
"""
_VECTORS = """\
With [sentence-transformers](https://sbert.net), as vectors of texts:

```console
$ nextword export {repository} --to sentence-transformers
```

```python
from sentence_transformers import SentenceTransformer

SentenceTransformer("{name}-embeddings").encode(["a text", "another"])
```
"""
_EMBEDDINGS = """\
With [openai](https://github.com/openai/openai-python), the same vectors from an endpoint:

```console
$ nextword serve {repository}
```

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
client.embeddings.create(model="{name}", input=["a text", "another"])
```
"""
_BY_KIND = {
    "text-generation": (
        _TRANSFORMERS
        + """
```python
from transformers import pipeline

pipeline("text-generation", model="{repository}")("Once", max_new_tokens=40)
```
""",
        _NEXTWORD
        + """
```console
$ nextword generate {repository}
$ nextword explain {repository} "Once"
```
""",
        """\
With [openai](https://github.com/openai/openai-python), from an endpoint that tells
exact probabilities of prompts:

```console
$ nextword serve {repository}
```

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
client.completions.create(model="{name}", prompt="Once", max_tokens=40)
```
""",
        """\
With [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness):

```console
$ lm_eval --model hf --model_args pretrained={repository},add_bos_token=True --tasks lambada_openai
```
""",
    ),
    "fill-mask": (
        _TRANSFORMERS
        + """
```python
from transformers import pipeline

fill = pipeline("fill-mask", model="{repository}")
fill(f"the {{fill.tokenizer.mask_token}} cat")
```
""",
        _NEXTWORD
        + """
```console
$ nextword fill {repository} "the [MASK] cat"
```
""",
        _ONNX,
        _VECTORS,
        _EMBEDDINGS,
    ),
    "text-classification": (
        _TRANSFORMERS
        + """
```python
from transformers import pipeline

pipeline("text-classification", model="{repository}")("a text")
```
""",
        _NEXTWORD
        + """
```console
$ nextword classify {repository} "a text"
```
""",
        _ONNX,
        _VECTORS,
        _EMBEDDINGS,
    ),
}


def uses(kind: str, repository: str, *, in_gguf: bool) -> str:
    """Show a model's use, as Markdown.

    Args:
        kind: what it is for, in the Hub's words.
        repository: OWNER/NAME under which it is found.
        in_gguf: whether llama.cpp can read it; else a model that writes is shown in onnxruntime.
    """
    parts = list(_BY_KIND[kind])
    if kind == "text-generation":
        parts.insert(3, _GGUF if in_gguf else _ONNX_CAUSAL)
    return "\n".join(parts).format(repository=repository, name=repository.rpartition("/")[2])
