"""What our hooks see of an exported model is what TransformerLens sees.

It needs other versions of common packages, so it has an environment of its own:

    python -m venv .venv-lens && .venv-lens/bin/pip install transformer_lens

or any other whose interpreter GPT2LIB_LENS_PYTHON names.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gpt2lib.config import GPTConfig
from gpt2lib.course.changing import replaced_heads
from gpt2lib.course.inside import look
from gpt2lib.hub import export
from gpt2lib.hub.saving import save_model
from gpt2lib.model.gpt import GPT
from gpt2lib.tokenizer import CharTokenizer

REPO = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("GPT2LIB_LENS_PYTHON", REPO / ".venv-lens" / "bin" / "python"))


@pytest.mark.slow
@pytest.mark.skipif(
    not PYTHON.exists(), reason=f"{PYTHON} is not there; see the first lines of this file"
)
def test_activations_are_those_of_transformer_lens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=26, block_size=24, n_layer=3, n_head=4, n_embd=32)).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    save_model(model, CharTokenizer("abcdefghijklmnopqrstuvwxyz"), tmp_path / "ours")
    folder = export(tmp_path / "ours", tmp_path / "exported")
    idx = torch.randint(26, (2, 24))
    save_file({"idx": idx}, tmp_path / "ids.safetensors")
    script = Path(__file__).with_name("lens_activations.py")
    files = [folder, tmp_path / "ids.safetensors", tmp_path / "out.safetensors"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([PYTHON, script, *files], check=True, env=environment | {"HF_HUB_OFFLINE": "1"})
    theirs, seen = load_file(files[-1]), look(model, idx)
    ours = {"logits": seen.logits}
    for name, by_layer in (
        ("stream", seen.streams), ("heads", seen.heads), ("pattern", seen.patterns),
        ("mlp", seen.mlps),
    ):  # fmt: skip
        ours |= {f"{name} {layer}": value for layer, value in enumerate(by_layer)}
    with torch.no_grad(), replaced_heads(model, [(1, 2)]):
        ours["without 1.2"] = model(idx)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-5, msg=name)
