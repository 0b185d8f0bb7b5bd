"""LoRA's matrices as files, in the form of the library PEFT: it opens ours, and we open its.

An adapter is two files, the matrices and what they are, and of no use without the model that it
was trained beside. A checkpoint of a run with LoRA is such a folder; it says whose weights these
were, and a hash of them.

In transformers GPT-2's linear layers are `Conv1D`s, whose weight is (in, out). PEFT keeps A (r, in)
and B (out, r) all the same, so only their sum, B·A, would have to be transposed, and it is never
written down.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from gpt2lib.config import MethodConfig
from gpt2lib.model.lora import A, B, lora_layers, merged_weight
from gpt2lib.runs.checkpoint import ADAPTER, ADAPTER_CONFIG, read_tensors
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import read_json

PREFIX, SUFFIX = "base_model.model.", ".weight"
"""What PEFT puts around our names."""

BASE = "base"
"""The key of our config.json that names the model under an adapter."""


NOT_READ = (
    *("use_dora", "modules_to_save", "alpha_pattern", "trainable_token_indices", "lora_bias"),
    *("layer_replication", "target_parameters"),
)
"""What PEFT can do beside the plain LoRA that is understood here."""


class Adapter(NamedTuple):
    """LoRA's matrices, read.

    Attributes:
        folder: where they lie.
        base: what names the model that they were trained beside.
        fingerprint: of that model's weights, if it is known.
        matrices: A and B by the name of their layer.
        scale: what their product is multiplied by.
    """

    folder: Path
    base: str
    fingerprint: str | None
    matrices: dict[str, tuple[Tensor, Tensor]]
    scale: dict[str, float]


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds LoRA's matrices, ours or PEFT's."""
    return (folder / ADAPTER_CONFIG).is_file() and (folder / ADAPTER).is_file()


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return LoRA's matrices of a model under PEFT's names."""
    return {
        f"{PREFIX}{name}.{part}{SUFFIX}": getattr(layer, part).detach()
        for name, layer in lora_layers(model).items()
        for part in (A, B)
    }


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices under our names, from PEFT's."""
    return {n.removeprefix(PREFIX).removesuffix(SUFFIX): tensor for n, tensor in tensors.items()}


def adapter_config(method: MethodConfig, base: str) -> dict[str, Any]:
    """Return what PEFT's `adapter_config.json` says of matrices that a run has trained."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.lora_dropout,
        "target_modules": list(method.targets),
        "fan_in_fan_out": True,  # of a Conv1D
        "bias": "none",
        "inference_mode": True,
    }


def fingerprint(weights: Mapping[str, Tensor], layers: list[str]) -> str:
    """Return a hash of the weights that matter to an adapter: its layers', and the embedding's."""
    found = hashlib.sha256()
    for name in ["transformer.wte", *sorted(layers)]:
        found.update(weights[f"{name}.weight"].detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


def read_adapter(folder: Path) -> Adapter:
    """Read LoRA's matrices, ours or PEFT's.

    Raises:
        UserError: if a file is damaged, or PEFT wrote something that is not LoRA alone.
    """
    path = folder / ADAPTER_CONFIG
    said = read_json(path)
    _refuse_what_is_not_lora(path, said)
    config = folder / "config.json"
    ours = read_json(config).get(BASE) if config.is_file() else None
    known: dict[str, Any] = ours if isinstance(ours, dict) else {}
    base = known.get("source") or said.get("base_model_name_or_path")
    if not base:
        raise UserError(f"{path} does not name the model under the adapter")
    tensors = own_names(read_tensors(folder / ADAPTER))
    layers = sorted({name.rpartition(".")[0] for name in tensors})
    expected = {f"{layer}.{part}" for layer in layers for part in (A, B)}
    if odd := sorted(expected ^ tensors.keys()):
        raise UserError(f"{folder / ADAPTER} is no adapter of LoRA: see its {odd[0]!r}")
    matrices = {layer: (tensors[f"{layer}.{A}"], tensors[f"{layer}.{B}"]) for layer in layers}
    root = math.sqrt if said.get("use_rslora") else float
    scale = {name: said["lora_alpha"] / root(len(a)) for name, (a, _) in matrices.items()}
    return Adapter(folder, str(base), known.get("fingerprint"), matrices, scale)


def _refuse_what_is_not_lora(path: Path, said: Mapping[str, Any]) -> None:
    """Refuse what PEFT can do beside the plain LoRA that is understood here."""
    if said.get("peft_type") != "LORA":
        raise UserError(f"{path} has peft_type {said.get('peft_type')!r}; what can be read is LORA")
    for name in NOT_READ:
        if said.get(name):
            raise UserError(
                f"{path} has {name} {said[name]}, which is not read here; merge_and_unload() in "
                "PEFT and save_pretrained() write a model that is"
            )
    if said.get("bias", "none") != "none":
        raise UserError(f"{path} has bias {said['bias']!r}, which is not read here; only 'none' is")
    alpha = said.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise UserError(f"{path} has lora_alpha {alpha!r}, which is no number")


def merge_into(weights: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
    """Return the weights of the base with the adapter's product added where it belongs.

    Raises:
        UserError: if the base is not the one, or has no such layer, or of another shape.
    """
    found = dict(weights)
    for layer, (a, b) in adapter.matrices.items():
        name = f"{layer}.weight"
        if name not in found:
            raise UserError(
                f"{adapter.folder} has matrices for {layer}, which {adapter.base} has not: the "
                "adapter belongs to another model"
            )
        product = b.shape[0], a.shape[1]
        if a.shape[0] != b.shape[1] or product != tuple(found[name].shape):
            raise UserError(
                f"the matrices for {layer} in {adapter.folder} are {tuple(b.shape)} and "
                f"{tuple(a.shape)}, but {adapter.base} has a weight of {tuple(found[name].shape)}: "
                "the adapter belongs to another model"
            )
    if adapter.fingerprint not in (None, now := fingerprint(weights, list(adapter.matrices))):
        raise UserError(
            f"{adapter.base} has not the weights any more that {adapter.folder} was trained "
            f"beside: their fingerprint is {now[:12]}, it was {str(adapter.fingerprint)[:12]}"
        )
    for layer, (a, b) in adapter.matrices.items():
        name = f"{layer}.weight"
        found[name] = merged_weight(found[name], a, b, adapter.scale[layer])
    return found
