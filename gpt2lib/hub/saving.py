"""A model that no run made, such as one whose shape was changed, as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import model_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.tokenizer import Tokenizer
from gpt2lib.utils.files import atomic_folder


def save_model(model: GPT, tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Write a model and its tokenizer as a checkpoint without a run.

    `load_pretrained`, `export` and `--init_from` take the folder. One that exists is replaced.

    Raises:
        UserError: if the disk refuses.
    """
    folder = Path(folder)
    with atomic_folder(folder) as target:
        checkpoint.write_tensors(target / checkpoint.MODEL, model_tensors(model))
        checkpoint.write_model_config(target, model.config)
        tokenizer.save(target / "tokenizer")
    return folder
