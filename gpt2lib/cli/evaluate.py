"""`gpt2lib evaluate`: how well a model predicts text that it has not seen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gpt2lib.cli.terminal import print_json, print_table, scores_table
from gpt2lib.cli.trained import Trained, load_model, run_of, text_of_run
from gpt2lib.config import DataConfig, TrainConfig
from gpt2lib.config.schema import with_changes
from gpt2lib.utils.errors import UserError

if TYPE_CHECKING:
    from gpt2lib.data import TokenFile
    from gpt2lib.tokenizer import Tokenizer

OF_ANY_TEXT = ("data.mask_documents", "data.cache")
"""What may be said of the run's own text too; the other fields say how another one is read."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Trained):
    """Score text that the model has not seen, every token once.

    By default that is the run's own held-out text. Of another source it is the part that the
    source itself holds out (as plays and prepared folders do), and else all of it. Documents are
    read by themselves (--data.mask_documents) if they were in the run's training.

    Attributes:
        json: print JSON and nothing else.
        data: other text: what --data.source of `gpt2lib train` takes.
        batch_size: windows scored at a time.
        weights: what the weights are kept in, as in `generate`; the scores tell what that costs.
    """

    usage = "RUN [--data SOURCE] [--weights auto|fp32|bf16|int8] [--json]"
    arguments = ("run",)
    config, under = DataConfig, "data."
    skip = ("source", "mixture", "tokenizer", "vocab_size", "val_fraction")

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
    elif of_other := [name for name in changes if name not in OF_ANY_TEXT]:
        raise UserError(
            f"--{of_other[0]} says how other text is read, and the run's own is read as it was in "
            "training; name the text with --data SOURCE, or leave it out"
        )
    scores, name, said = _score(options, changes)
    if options.json:
        print_json({**scores, "text": name, **said})
    else:
        by_itself = {"documents": "each by itself"} if said["mask_documents"] else {}
        weights = {"weights": str(said["weights"])}
        print_table({"text": name, **by_itself, **weights, **scores_table(scores)})
    return 0


def _score(
    options: Evaluate, changes: dict[str, Any]
) -> tuple[dict[str, float], str, dict[str, Any]]:
    """Return the scores, the name of the text, and how it was read."""
    from gpt2lib.data import masking_eot
    from gpt2lib.hub import load_tokenizer_for, resolve
    from gpt2lib.training.evaluation import score

    folder = resolve(options.run)
    tokenizer, run = load_tokenizer_for(folder), run_of(folder)
    # Whether a token sees other documents, and which are scored, is the model's affair.
    as_trained = ("mask_documents", "template")
    masked = {} if run is None else {f"data.{n}": getattr(run.data, n) for n in as_trained}
    changes = masked | changes
    if "data.source" in changes:
        data = DataConfig.from_dict(with_changes({}, changes)["data"])
        tokens = _other_text(data, tokenizer)
    elif run is None:
        raise UserError(f"{options.run} does not say what it was trained on; give --data SOURCE")
    else:
        data = TrainConfig.from_dict(with_changes(run.to_dict(), changes)).data
        prepared = text_of_run(run.replace(data=data), folder, tokenizer)
        if prepared.val is None:
            raise UserError(f"nothing of {prepared.train.name} was held out; give --data SOURCE")
        tokens = prepared.val
    tokens.check_tokenizer(tokenizer.fingerprint)
    eot = masking_eot(data, tokenizer)
    model, weights = load_model(options, folder, many_rows=True)
    scores = score(
        model, tokens, model.config.block_size, options.batch_size, eot=eot, end=tokenizer.eot
    )
    return scores, tokens.name, {"weights": weights, "mask_documents": data.mask_documents}


def _other_text(data: DataConfig, tokenizer: Tokenizer) -> TokenFile:
    """Prepare other text with the model's tokenizer."""
    from gpt2lib.data import prepare

    prepared = prepare(data, tokenizer=tokenizer, whole=True)
    return prepared.val or prepared.train
