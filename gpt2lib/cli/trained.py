"""What commands share that work with a trained model: which, in which weights, and where."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt2lib.cli.terminal import Options

if TYPE_CHECKING:
    from gpt2lib.model.gpt import GPT

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained(Options):
    """A model that is used.

    Attributes:
        run: a run, one of its checkpoints, a transformers folder, or a hub name such as gpt2.
        weights: what the weights are kept in. Fewer bytes are faster; int8 costs some quality.
            auto: bf16 for a model of 5 million parameters or more on a CPU, and on a GPU that
            computes in it; else fp32.
        device: where it is computed; auto is a GPU where there is one.
    """

    run: str
    weights: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def load_model(options: Trained, folder: Path, many_rows: bool) -> tuple[GPT, str]:
    """Return the model on its device, with the weights asked for, and which these are.

    Args:
        options: what was asked for.
        folder: where the model lies.
        many_rows: whether many tokens are read at a time, or one; it is said where the weights
            make that slower.
    """
    from gpt2lib.generation.quantization import fastest_weights, for_decoding, slower_than_fp32
    from gpt2lib.hub import load_pretrained
    from gpt2lib.training.hardware import resolve_device

    model = load_pretrained(folder).to(resolve_device(options.device))
    weights: Any = fastest_weights(model) if options.weights == "auto" else options.weights
    if slow := slower_than_fp32(model, weights, many_rows):
        logger.warning("%s", slow)
    return model if weights == "fp32" else for_decoding(model, weights), weights
