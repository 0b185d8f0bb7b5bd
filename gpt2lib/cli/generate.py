"""`gpt2lib generate`, `gpt2lib evaluate` and `gpt2lib export`: what a trained model is for."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lib.cli.options import Parser
from gpt2lib.cli.output import print_json, print_table, scores_table, set_up_logging, text_pieces
from gpt2lib.config import DataConfig, TrainConfig, load_config
from gpt2lib.utils.errors import UserError

if TYPE_CHECKING:
    from gpt2lib.data import TokenFile
    from gpt2lib.model.gpt import GPT
    from gpt2lib.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

RUN = "a run, one of its checkpoints, a transformers folder, or a hub name such as gpt2"
WEIGHTS = ("fp32", "bf16", "int8")
DEVICE = "cpu, cuda, mps, or auto: a GPU where there is one"


def generate(argv: list[str]) -> int:
    """Run `gpt2lib generate RUN --prompt TEXT`: the text appears as it is drawn."""
    parser = Parser("generate", "RUN --prompt TEXT [options]", "Continue a text, token by token.")
    parser.add_argument("run", help=RUN)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what to continue")
    parser.add_argument("--max_new_tokens", type=int, default=200, help="how many tokens to draw")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="below 1 sharpens, above 1 flattens, 0 takes only the likeliest token",
    )
    parser.add_argument("--top_k", type=int, default=None, help="keep the k likeliest tokens")
    parser.add_argument(
        "--top_p",
        type=float,
        default=None,
        help="keep the smallest set of likeliest tokens whose probabilities reach p",
    )
    parser.add_argument(
        "--repetition_penalty",
        type=float,
        default=1.0,
        help="above 1 makes tokens that occurred less likely; 1 does nothing",
    )
    parser.add_argument(
        "--past_block",
        default="reread",
        metavar="reread|refuse",
        help="when the context is full: go on from its last half, or refuse at the start",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=None,
        help="makes the text repeatable; else it differs each time",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text; may be given several times",
    )
    parser.add_argument(
        "--weights",
        default="auto",
        metavar="auto|fp32|bf16|int8",
        help="what the weights are kept in while it writes. Fewer bytes are faster; int8 costs "
        "some quality. auto: bf16 for a model of 5 million parameters or more on a CPU, and on a "
        "GPU that computes in it; else fp32",
    )
    parser.add_argument("--device", default="auto", help=DEVICE)
    values = parser.read(argv)
    _check_weights(values["weights"])
    if values["max_new_tokens"] < 1:
        raise UserError(f"--max_new_tokens must be at least 1, not {values['max_new_tokens']}")
    if values["seed"] is not None and not 0 <= values["seed"] < 2**63:
        raise UserError(f"--seed must be from 0 to 2**63 - 1, not {values['seed']}")
    set_up_logging()
    text = _continuation(values)
    first = next(text, "")  # so that whatever is wrong is said before anything is printed
    print(values["prompt"] + first, end="", flush=True)
    for piece in text:
        print(piece, end="", flush=True)
    print()
    return 0


def _continuation(values: dict[str, Any]) -> Iterator[str]:
    """Load the model and yield what it writes after the prompt, in pieces."""
    import torch

    from gpt2lib.generation.generator import stream
    from gpt2lib.hub import load_pretrained, load_tokenizer_for, resolve
    from gpt2lib.training.hardware import resolve_device

    device = _known_device(values["device"])
    folder = resolve(values["run"])
    tokenizer = load_tokenizer_for(folder)
    ids = tokenizer.encode(values["prompt"])
    if not ids:
        if tokenizer.eot is None:
            raise UserError("--prompt is empty; give at least one character")
        ids = [tokenizer.eot]
    model = load_pretrained(folder).to(resolve_device(device))
    on = next(model.parameters()).device
    model, _ = _with_weights(model, values["weights"], many_rows=False)
    seed = values["seed"] if values["seed"] is not None else random.SystemRandom().getrandbits(32)
    idx = torch.tensor([ids], device=on)  # (1, T)
    tokens = stream(
        model,
        idx,
        values["max_new_tokens"],
        temperature=values["temperature"],
        top_k=values["top_k"],
        top_p=values["top_p"],
        repetition_penalty=values["repetition_penalty"],
        past_block=values["past_block"],
        seed=seed,
        stop=() if tokenizer.eot is None else (tokenizer.eot,),
    )
    drawn = (tokenizer.token_bytes(token) for token in tokens if token != tokenizer.eot)
    return text_pieces(drawn, values["stop"])


def evaluate(argv: list[str]) -> int:
    """Run `gpt2lib evaluate RUN [--data SOURCE] [--json]`."""
    parser = Parser(
        "evaluate",
        "RUN [--data SOURCE] [--weights auto|fp32|bf16|int8] [--json]",
        "Score text that the model has not seen, every token once. By default that is the run's "
        "own held-out text. Of another source it is the part that the source itself holds out (as "
        "plays and prepared folders do), and else all of it.",
        DataConfig,
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--batch_size", type=int, default=16, help="windows scored at a time")
    parser.add_argument(
        "--weights",
        default="fp32",
        metavar="auto|fp32|bf16|int8",
        help="what the weights are kept in, as in `generate`: the scores tell what that costs",
    )
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_fields("data", skip=("tokenizer", "vocab_size", "val_fraction"))
    parser.set_defaults({"data.source": None})
    values = parser.read([_long_name(word) for word in argv])
    _check_weights(values["weights"])
    if values["batch_size"] < 1:
        raise UserError(f"--batch_size must be at least 1, not {values['batch_size']}")
    set_up_logging()
    scores, name, weights = _score(values)
    if values["json"]:
        print_json({**scores, "weights": weights})
    else:
        print_table({"text": name, "weights": weights, **scores_table(scores)})
    return 0


def _check_weights(weights: str) -> None:
    """Refuse weights that there are not."""
    if weights not in ("auto", *WEIGHTS):
        raise UserError(f"--weights must be auto, fp32, bf16 or int8, not {weights!r}")


def _with_weights(model: GPT, weights: str, many_rows: bool) -> tuple[GPT, str]:
    """Return the model with the weights asked for, and which these are; say if they are slow.

    Args:
        model: as it was trained.
        weights: auto, or one of `WEIGHTS`.
        many_rows: whether many tokens are read at a time, or one.
    """
    from gpt2lib.generation.quantization import fastest_weights, for_decoding, slower_than_fp32

    chosen: Any = fastest_weights(model) if weights == "auto" else weights
    if slow := slower_than_fp32(model, chosen, many_rows):
        logger.warning("%s", slow)
    return model if chosen == "fp32" else for_decoding(model, chosen), chosen


def _long_name(word: str) -> str:
    """Turn `--data` into the field that it stands for."""
    name, equals, value = word.partition("=")
    return f"--data.source{equals}{value}" if name == "--data" else word


def _score(values: dict[str, Any]) -> tuple[dict[str, float], str, str]:
    """Return the scores, the name of the text, and what the weights were kept in."""
    from gpt2lib.hub import load_pretrained, load_tokenizer_for, resolve
    from gpt2lib.training.evaluation import score
    from gpt2lib.training.hardware import resolve_device

    device = resolve_device(_known_device(values["device"]))
    folder = resolve(values["run"])
    tokenizer = load_tokenizer_for(folder)
    if values["data"]["source"] is None:
        tokens = _held_out(values["run"], folder, tokenizer)
    else:
        tokens = _other_text(DataConfig.from_dict(values["data"]), tokenizer)
    tokens.check_tokenizer(tokenizer.fingerprint)
    model = load_pretrained(folder).to(device)
    model, weights = _with_weights(model, values["weights"], many_rows=True)
    scores = score(model, tokens, model.config.block_size, values["batch_size"])
    return scores, tokens.name, weights


def _held_out(run: str, folder: Path, tokenizer: Tokenizer) -> TokenFile:
    """Open the held-out text of the run that a checkpoint folder belongs to."""
    from gpt2lib.data import prepare

    path = folder.parent.parent / "config.yaml"
    if folder.parent.name != "checkpoints" or not path.is_file():
        raise UserError(f"{run} does not say what it was trained on; give --data SOURCE")
    config: TrainConfig = load_config(str(path))
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


def _known_device(device: str) -> str:
    """Check a device's name, in the words that the same mistake gets in a configuration."""
    return str(TrainConfig.from_dict({"device": device}).device)


def export(argv: list[str]) -> int:
    """Run `gpt2lib export RUN DIR [--licence NAME]`."""
    parser = Parser(
        "export",
        "RUN DIR [--licence NAME]",
        "Write a model and its tokenizer as a folder that transformers opens, with a model card. "
        "The class is GPT-2, GPTBigCode or Starcoder2; what none of them computes is refused.",
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("folder", metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--licence",
        default=None,
        metavar="NAME",
        help="of the weights, for the model card, as the hub writes it: mit, cc-by-4.0",
    )
    values = parser.read(argv)
    set_up_logging()
    from gpt2lib.hub import export as export_model
    from gpt2lib.utils.files import read_json

    folder = export_model(values["run"], values["folder"], licence=values["licence"])
    (name,) = read_json(folder / "config.json")["architectures"]
    print(f"{folder} is written; transformers opens it as {name}:\n")
    print("  from transformers import pipeline")
    print(f'  pipeline("text-generation", {str(folder)!r})("...")')
    return 0
