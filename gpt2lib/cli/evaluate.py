"""`gpt2lib evaluate`: how well a model predicts text that it has not seen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt2lib.cli.terminal import print_json, print_table, scores_table
from gpt2lib.cli.trained import Trained, load_model
from gpt2lib.config import DataConfig, load_config
from gpt2lib.config.schema import with_changes
from gpt2lib.utils.errors import UserError

if TYPE_CHECKING:
    from gpt2lib.data import TokenFile
    from gpt2lib.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Evaluate(Trained):
    """Score text that the model has not seen, every token once.

    By default that is the run's own held-out text. Of another source it is the part that the
    source itself holds out (as plays and prepared folders do), and else all of it.

    Attributes:
        json: print JSON and nothing else.
        data: other text: what --data.source of `gpt2lib train` takes.
        batch_size: windows scored at a time.
        weights: what the weights are kept in, as in `generate`; the scores tell what that costs.
    """

    usage = "RUN [--data SOURCE] [--weights auto|fp32|bf16|int8] [--json]"
    arguments = ("run",)
    config, under = DataConfig, "data."
    skip = ("source", "tokenizer", "vocab_size", "val_fraction")

    json: bool = False
    data: str | None = None
    batch_size: int = 16
    weights: Literal["auto", "fp32", "bf16", "int8"] = "fp32"

    def __post_init__(self) -> None:
        self.check_at_least_one("batch_size")


def evaluate(argv: list[str]) -> int:
    """Run `gpt2lib evaluate RUN [--data SOURCE] [--json]`."""
    given = [re.sub(r"^--data\.source(?==|$)", "--data", word) for word in argv]
    options, changes = Evaluate.read(given)
    if options.data is not None:
        changes["data.source"] = options.data
    scores, name, weights = _score(options, changes)
    if options.json:
        print_json({**scores, "weights": weights})
    else:
        print_table({"text": name, "weights": weights, **scores_table(scores)})
    return 0


def _score(options: Evaluate, changes: dict[str, Any]) -> tuple[dict[str, float], str, str]:
    """Return the scores, the name of the text, and what the weights were kept in."""
    from gpt2lib.hub import load_tokenizer_for, resolve
    from gpt2lib.training.evaluation import score

    folder = resolve(options.run)
    tokenizer = load_tokenizer_for(folder)
    if "data.source" in changes:
        other = DataConfig.from_dict(with_changes({}, changes)["data"])
        tokens = _other_text(other, tokenizer)
    else:
        tokens = _held_out(options.run, folder, tokenizer)
    tokens.check_tokenizer(tokenizer.fingerprint)
    model, weights = load_model(options, folder, many_rows=True)
    scores = score(model, tokens, model.config.block_size, options.batch_size)
    return scores, tokens.name, weights


def _held_out(run: str, folder: Path, tokenizer: Tokenizer) -> TokenFile:
    """Open the held-out text of the run that a checkpoint folder belongs to."""
    from gpt2lib.data import prepare

    path = folder.parent.parent / "config.yaml"
    if folder.parent.name != "checkpoints" or not path.is_file():
        raise UserError(f"{run} does not say what it was trained on; give --data SOURCE")
    config = load_config(str(path))
    learned = config.init_from is None and config.data.tokenizer in ("auto", "bpe", "char")
    prepared = prepare(config.data, tokenizer=None if learned else tokenizer)
    if prepared.val is None:
        raise UserError(f"nothing of {config.data.source} was held out; give --data SOURCE")
    return prepared.val


def _other_text(data: DataConfig, tokenizer: Tokenizer) -> TokenFile:
    """Prepare other text with the model's tokenizer."""
    from gpt2lib.data import prepare

    prepared = prepare(data.replace(val_fraction=0.0), tokenizer=tokenizer)
    return prepared.val or prepared.train
