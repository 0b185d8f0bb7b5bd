"""What commands share that work with a trained model: which, in which weights, and where."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt2lib.cli.terminal import Options
from gpt2lib.config import TrainConfig, load_config
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import read_json

if TYPE_CHECKING:
    from gpt2lib.data import Prepared
    from gpt2lib.model.gpt import GPT
    from gpt2lib.tokenizer import Tokenizer

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


def run_of(folder: Path) -> TrainConfig | None:
    """Return the settings of the run that a checkpoint folder lies in, if it lies in one."""
    path = folder.parent.parent / "config.yaml"
    lies_in_one = folder.parent.name == "checkpoints" and path.is_file()
    return load_config(str(path)) if lies_in_one else None


def text_of_run(run: TrainConfig, folder: Path, tokenizer: Tokenizer) -> Prepared:
    """Open the text of the run that a checkpoint folder belongs to.

    Raises:
        UserError: if it is not the one that the run was trained on: what is held out of another
            may have been trained on.
    """
    from gpt2lib.data import prepare
    from gpt2lib.data.sources import found_from
    from gpt2lib.runs.checkpoint import STATE

    data = run.data.replace(source=found_from(folder.parent.parent, run.data.source))
    learned = run.init_from is None and run.data.tokenizer in ("auto", "bpe", "char")
    theirs = str(read_json(folder / STATE).get("source"))
    prepared = prepare(data, tokenizer=None if learned else tokenizer, earlier=theirs)
    now = prepared.train.header.source
    if theirs != now:
        raise UserError(
            f"{prepared.train.name} is not the text that {folder} was trained on: its fingerprint "
            f"is {now[:12]}, the run's {theirs[:12]}. Put the old text back, or score any text as "
            "it is with --data SOURCE"
        )
    return prepared
