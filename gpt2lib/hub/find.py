"""From what a user names to the folder where the model lies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gpt2lib.config import preset_names
from gpt2lib.hub import nanogpt
from gpt2lib.hub.adapters import is_adapter
from gpt2lib.runs import checkpoint
from gpt2lib.utils.errors import UserError, nearest
from gpt2lib.utils.files import MANIFEST, expand, verify
from gpt2lib.utils.formats import read_json

KIND = "gpt2lib"
"""What `config.json` of our checkpoints says under "kind"."""

WEIGHTS = checkpoint.MODEL
INDEX = f"{WEIGHTS}.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve(source: str | Path) -> Path:
    """Return the folder with the weights that `source` means; for nanoGPT's, the file.

    Args:
        source: a run (its newest checkpoint that verifies), one of our checkpoints (verified
            first), a folder with a transformers checkpoint, nanoGPT's ckpt.pt or its folder, or a
            name on the Hugging Face hub. A folder that exists is taken before a hub name.

    Raises:
        UserError: if there is no such thing, it is damaged, or it holds no weights.
    """
    folder = expand(source)
    if folder.is_dir():
        return _checked(folder)
    if folder.exists():
        if folder.suffix == ".pt":
            return folder
        raise UserError(f"{source} is a file; give the folder that it lies in")
    if isinstance(source, Path) or _looks_like_a_path(source):
        raise UserError(f"there is no folder {source}{_nearest_folder(folder)}")
    if source in preset_names():
        raise UserError(
            f"{source} is a preset and not a trained model; train it first: "
            f"gpt2lib train {source} --out runs/{source}"
        )
    return _checked(_download(source))


def is_ours(config: dict[str, Any]) -> bool:
    """Return whether a `config.json` is one of our checkpoints'."""
    return config.get("kind") == KIND


def _checked(folder: Path) -> Path:
    """Return the folder itself, or the newest checkpoint of a run, with weights inside."""
    if (folder / "checkpoints").is_dir():
        return _newest(folder)
    sealed = (folder / MANIFEST).exists()
    if sealed:  # ours, whatever a damaged config.json may say now
        verify(folder)
    if is_adapter(folder):
        return folder
    config = folder / "config.json"
    if not config.exists() and (folder / nanogpt.FILE).is_file():
        return folder / nanogpt.FILE
    if not config.is_file():
        raise UserError(
            f"{folder} holds no model: config.json is missing; give a run, a checkpoint of a run, "
            "a transformers folder, or nanoGPT's ckpt.pt"
        )
    if not sealed and is_ours(read_json(config)):
        raise UserError(f"{folder} is not complete: {MANIFEST} is missing; use another copy of it")
    if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise UserError(_no_weights(folder))
    return folder


def _newest(run: Path) -> Path:
    found = checkpoint.newest(run)
    if found is not None:
        return found
    count = len(checkpoint.checkpoints(run))
    state = f"none of its {count} checkpoints is whole" if count else "it has no checkpoint yet"
    raise UserError(f"run {run} cannot be used: {state}; train it first, or give another run")


def _no_weights(folder: Path) -> str:
    if any((folder / name).is_file() for name in PICKLED):
        return (
            f"{folder} has its weights in pytorch_model.bin only, a pickle, which can run any code "
            "when opened; load it in transformers if you trust it, and save_pretrained() writes "
            f"{WEIGHTS}"
        )
    return f"{folder} has no weights: {WEIGHTS} is missing"


def _looks_like_a_path(source: str) -> bool:
    """Return whether a name that is no folder was meant as one, and not as a hub name."""
    if not HUB_NAME.fullmatch(source) or source in (".", ".."):
        return True
    first, slash, _ = source.partition("/")
    return first in (".", "..") or bool(slash and Path(first).is_dir())


def _nearest_folder(folder: Path) -> str:
    """Return a did-you-mean for the first part of the path that does not exist."""
    missing = folder
    while missing.parent != missing and not missing.parent.is_dir():
        missing = missing.parent
    try:
        names = [p.name for p in missing.parent.iterdir() if p.is_dir()]
    except OSError:
        return ""
    within = "" if missing.parent == Path() else f" (in {missing.parent})"
    hint = nearest(missing.name, names)
    return f"{hint}{within}" if hint else ""


def _download(name: str) -> Path:
    """Fetch the small files and the safetensors of a hub repository, or find them in the cache."""
    import huggingface_hub

    patterns = ["*.json", "*.txt", "*.safetensors"]
    try:
        found = huggingface_hub.snapshot_download(
            name, allow_patterns=patterns, ignore_patterns=["*/*"]
        )
    except Exception as error:  # its own types, the HTTP client's, and OSError
        reason = str(error).strip().partition("\n")[0][:160]
        beside = _nearest_folder(Path(os.path.normpath(name)))
        raise UserError(
            f"{name!r} is no folder here, and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {reason}); check the name and the network, or give a folder"
            f"{beside}"
        ) from error
    return Path(found)
