"""Checkpoints of nanoGPT: one pickled file, of which only tensors and plain values are taken.

Names and layouts are ours. What differs:

- The GELU is the exact one. Before May 2023 nanoGPT had the tanh form. A file without `bias` in
  its `model_args` is from January 2023 at the latest, so it gets that form. Of the months between,
  nothing in the file tells: export such a model, and write "gelu_new" as the
  `activation_function` of its config.json.
- The vocabulary is often GPT-2's, filled up from 50257 to 50304 with ids that never occur. They
  stay.
- The file has no tokenizer. One that lies in the same folder is taken. Otherwise a vocabulary of
  50257 or 50304 means GPT-2's. nanoGPT keeps the characters of a small vocabulary in `meta.pkl`
  beside the data, which is a pickle and is not opened: where you trust it, read it yourself and
  write `CharTokenizer(characters).save(folder)`.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.hub.family import Tensors, without_wrappers
from gpt2lib.hub.gpt2 import our_names
from gpt2lib.utils.errors import UserError

FILE = "ckpt.pt"
NEEDED = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
OPTIONAL = ("bias", "dropout")
GPT2_VOCABULARIES = (50257, 50304)
TOKENIZER_FILES = ("chars.json", "tokenizer.json", "vocab.json")


def read(path: Path) -> tuple[GPTConfig, Tensors]:
    """Read shape and weights; nothing in the file is run.

    Raises:
        UserError: if it is damaged, holds more than tensors and plain values, or is not nanoGPT's.
    """
    content = _load(path)
    model, given = (
        content.get(key) if isinstance(content, dict) else None for key in ("model", "model_args")
    )
    if not isinstance(model, dict) or not isinstance(given, dict):
        raise UserError(
            "this is no checkpoint of nanoGPT, for it lacks 'model' or 'model_args'; "
            "give a run, a transformers folder or another file"
        )
    missing = [name for name in NEEDED if name not in given]
    unknown = [name for name in given if name not in (*NEEDED, *OPTIONAL)]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}"
        raise UserError(f"model_args {what}, so it is not nanoGPT's own model")
    tensors = our_names(without_wrappers(model))
    return _config(given, tensors), tensors


def _config(given: dict[str, Any], tensors: Tensors) -> GPTConfig:
    """Translate `model_args`; whether the head is tied, only the tensors say."""
    head, wte = (tensors.get(name) for name in ("lm_head.weight", "transformer.wte.weight"))
    tied = head is None or wte is None or torch.equal(head, wte)
    gelu = "exact" if "bias" in given else "tanh"
    return GPTConfig.from_dict({"bias": True, **given, "tie_weights": tied, "gelu": gelu})


def _load(path: Path) -> Any:
    """Unpickle a file as far as that is safe; its optimiser state is mapped, not read."""
    try:
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # pickle's, zip's and torch's own types
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unsafe:
            raise UserError(
                f"it holds {unsafe[1]}, which is neither a tensor nor a plain value: opening "
                "it could run code, so it is refused; in the project that wrote it, save "
                "'model' and 'model_args' only"
            ) from error
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:160]
        raise UserError(f"damaged, or no file of torch.save: {reason}") from error
    models = content.get("model") if isinstance(content, dict) else None
    if isinstance(models, dict):
        for name, value in models.items():
            if not isinstance(value, Tensor):
                raise UserError(f"{name} is no tensor but {type(value).__name__}")
        _refuse_much_from_little(list(models.values()))
    return content


def _refuse_much_from_little(tensors: list[Tensor]) -> None:
    """Refuse tensors that show the same few numbers over and over: their copies would not.

    A tied pair, the largest matrix of a small model, may be there twice.
    """
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    shown = sum(t.numel() * t.element_size() for t in tensors)
    if shown > 2 * sum(stored.values()):
        raise UserError(
            f"its tensors would take {shown:,} bytes, but only {sum(stored.values()):,} are stored"
        )


def tokenizer_place(path: Path, vocab_size: int) -> Path | str:
    """Return the folder or the name of the tokenizer that belongs to a checkpoint.

    Raises:
        UserError: if there is none.
    """
    folder = path.absolute().parent
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        return folder
    if vocab_size in GPT2_VOCABULARIES:
        return "gpt2"
    raise UserError(
        f"{path} has no tokenizer, and its {vocab_size} tokens are not GPT-2's; nanoGPT's meta.pkl "
        "is a pickle and is not opened: write its characters beside the checkpoint with "
        f"CharTokenizer(characters).save({str(path.parent)!r})"
    )
