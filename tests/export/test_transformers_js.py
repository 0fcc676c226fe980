"""Transformers.js itself, in Node: the same ids, the same logits, the same text."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import nextword
from nextword.export.onnx import write_onnx
from tests.compared import near

MODULES = os.environ.get("NEXTWORD_NODE_MODULES", "")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not (shutil.which("node") and Path(MODULES, "@huggingface/transformers").is_dir()),
        reason="Transformers.js is not installed",
    ),
]
TEXTS = [
    "Long ago, a queen named", "We are all humans, born to make", "", "a",
    "  two  spaces\n\n\nand lines ", "naïve café, Ünïcödé: ßtraße", "日本語のテキスト",
    "السلام عليكم", "😀 emoji 👩‍👩‍👧",
    "x = [1, 23, 456]; y += 7.8e-9", "\tif (a) {\n\t\treturn b;\n\t}\n",
]  # fmt: skip
SCRIPT = """
import { pipeline, env, AutoTokenizer, AutoModelForCausalLM } from "@huggingface/transformers";
const { root, folder, texts, tokens } = JSON.parse(process.argv[2]);
env.allowRemoteModels = false;
env.localModelPath = root + "/";
const options = { dtype: "fp32", device: "cpu" };
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const model = await AutoModelForCausalLM.from_pretrained(folder, options);
const write = await pipeline("text-generation", folder, options);
const found = [];
for (const text of texts) {
  const read = await tokenizer(text);
  const { logits } = await model(read);
  const size = logits.dims[2];
  const asked = { max_new_tokens: tokens, do_sample: false, return_full_text: false };
  const [told] = await write(text, asked);
  found.push({
    ids: read.input_ids.tolist()[0].map(Number),
    logits: Array.from(logits.data.slice(-size)),
    text: told.generated_text,
  });
}
console.log(JSON.stringify(found));
"""


def asked_in_node(place, texts, tokens):
    """Let Transformers.js read and go on with texts."""
    (place / "node_modules").symlink_to(MODULES, target_is_directory=True)
    (place / "ask.mjs").write_text(SCRIPT)
    told = json.dumps({"root": str(place), "folder": "it", "texts": texts, "tokens": tokens})
    done = subprocess.run(
        ["node", "ask.mjs", told], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_reads_and_writes_the_same(small_run, shared, tmp_path):
    folder = str(shared.folder / "runs" / small_run)
    model = nextword.load(folder)
    write_onnx(model.opened, tmp_path / "it")
    found = asked_in_node(tmp_path, TEXTS, 12)
    for text, one in zip(TEXTS, found, strict=True):
        ids = [model.vocabulary.begin_id, *model.vocabulary.encode(text)]
        assert one["ids"] == ids, text
        with torch.inference_mode():
            logits = model.model(torch.tensor([ids]))[0, -1].float().numpy()
        near("Transformers.js, logits", logits, one["logits"], most=1e-4)
        assert one["text"] == model.generate(text, temperature=0, max_tokens=12)
