"""To and from transformers checkpoints, and wherever else a model may lie.

    model = load_pretrained("gpt2")        # a hub name, a transformers folder, a run, a checkpoint
    model = load_pretrained("ckpt.pt")     # nanoGPT's
    tokenizer = load_tokenizer_for("gpt2")
    export("runs/cpu", "my-gpt2")          # a folder for AutoModelForCausalLM

A family of transformers models is one entry of `gpt2lib.hub.families.FAMILIES`.
"""

from gpt2lib.hub.exporting import export
from gpt2lib.hub.find import KIND, resolve
from gpt2lib.hub.loading import load_pretrained, load_tokenizer_for, model_config, tokenizer_folder

__all__ = [
    "KIND",
    "export",
    "load_pretrained",
    "load_tokenizer_for",
    "model_config",
    "resolve",
    "tokenizer_folder",
]
