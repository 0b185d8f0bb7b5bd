"""The model card of an export: what the model is, where it comes from, and how it is opened.

All of it is read from the run that the checkpoint lies in. What no file says is called unknown.
Of a path on this machine only the last part is told.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lib.config import GPTConfig, TrainConfig, load_config
from gpt2lib.data import is_prepared, sources_of
from gpt2lib.data.sources.named import ABOUT
from gpt2lib.data.token_files import INFO
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand
from gpt2lib.utils.formats import read_json

logger = logging.getLogger(__name__)

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
DATASET = re.compile(r"[\w.-]+/[\w.-]+")
NOT_KNOWN = "not known"


@dataclass(frozen=True)
class History:
    """What the files of a run say about one of its checkpoints.

    Attributes:
        config: the run's configuration.
        step: updates made up to this checkpoint.
        scores: held-out loss in nats per token and bits per byte, where they were measured.
        whole: whether they were measured on all held-out text, and not on a part.
    """

    config: TrainConfig
    step: int
    scores: dict[str, float]
    whole: bool


def history(checkpoint: Path) -> History | None:
    """Return what is known about a checkpoint folder, or None if it lies in no run."""
    run, step = checkpoint.parent.parent, checkpoint.name.removeprefix("step-")
    if checkpoint.parent.name != "checkpoints" or not step.isdigit():
        return None
    try:
        config = load_config(str(run / "config.yaml"))
        result = read_json(run / "result.json") if (run / "result.json").is_file() else {}
    except UserError as error:
        logger.warning("the model card says nothing about the run: %s", error)
        return None
    if result.get("steps") == int(step):  # it is about the last checkpoint
        return History(config, int(step), _scores(result, "loss", "bits_per_byte"), True)
    return History(config, int(step), _scores_on_the_way(run, int(step)), False)


def _scores(values: dict[str, Any], loss: str, bits: str) -> dict[str, float]:
    found = {"loss": values.get(loss), "bits_per_byte": values.get(bits)}
    return {name: float(value) for name, value in found.items() if value is not None}


def _scores_on_the_way(run: Path, step: int) -> dict[str, float]:
    """Return what an evaluation measured right after this update, if there was one."""
    path = run / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            values = json.loads(line)
        except ValueError:  # torn by a crash
            continue
        if values.get("step") == step and "val_loss" in values:
            return _scores(values, "val_loss", "val_bits_per_byte")
    return {}


def data_and_licence(source: str) -> tuple[str, str]:
    """Return name and licence of a text, as `data.source` of a run means it, without opening it."""
    if source in ABOUT:
        origin, licence = ABOUT[source]
        return f"{source}: {origin}", licence
    if _is_on_hub(source):
        return f"{source.removeprefix('hf:')}, a dataset of the Hugging Face hub", "see its card"
    if is_prepared(source):
        info = read_json(expand(source) / INFO)
        return str(info.get("name", NOT_KNOWN)), str(info.get("licence", NOT_KNOWN))
    return Path(source).name, NOT_KNOWN


def _is_on_hub(source: str) -> bool:
    name = source.removeprefix("hf:")
    named = DATASET.fullmatch(name.partition(":")[0]) is not None
    return source.startswith("hf:") and named and not expand(name).exists()


def check_licence(licence: str | None) -> str:
    """Return the identifier of a licence as the hub writes it; None means "unknown".

    Raises:
        UserError: if it cannot be one.
    """
    written = "unknown" if licence is None else licence.lower()
    if not LICENCE.fullmatch(written):
        raise UserError(
            f"licence {licence!r} is no identifier; the hub's look like mit, apache-2.0, cc-by-4.0"
        )
    return written


def adapter_card(name: str, base: str) -> str:
    """Write the card of LoRA's matrices alone.

    Args:
        name: what to call them.
        base: what PEFT loads under them.
    """
    import yaml

    front = {"library_name": "peft", "pipeline_tag": "text-generation", "base_model": base}
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n\nMatrices of LoRA (Hu et "
        f"al. 2021) for {base}, of no use without it:\n\n```python\nfrom peft import "
        f'AutoPeftModelForCausalLM\n\nmodel = AutoPeftModelForCausalLM.from_pretrained("{name}")\n'
        "```\n"
    )


def model_card(
    name: str, model: GPT, architecture: str, known: History | None, licence: str | None
) -> str:
    """Write the card, as Markdown with the hub's fields in front.

    Args:
        name: what to call the model.
        model: what is exported.
        architecture: the class of transformers that opens it.
        known: what `history` found.
        licence: of the weights, as the hub writes it.

    Raises:
        UserError: for a licence that cannot be one.
    """
    import yaml

    config, sources = model.config, [] if known is None else sources_of(known.config.data)
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": check_licence(licence),
        "tags": ["gpt2lib"],
    }
    datasets = [name.removeprefix("hf:").partition(":")[0] for name in sources if _is_on_hub(name)]
    if datasets:
        front["datasets"] = datasets
    terms = "were not stated" if licence is None else f"are `{check_licence(licence)}`"
    n_parameters = f"{model.num_parameters():,}"
    paragraphs = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}",
        f"A language model: it continues a text, token by token. It has {n_parameters} parameters "
        f"and was written by `gpt2lib` for the class `{architecture}` of transformers.",
        "## Architecture",
        _table(architecture_rows(config)),
        "## Training",
        "On what, for how long and to what loss it was trained is not known: the files that it "
        "was exported from do not say."
        if known is None
        else _table(training_rows(known)),
        "## Licence",
        f"The terms for the weights {terms}.",
        "## Use",
        "```python\nfrom transformers import pipeline\n\n"
        'generator = pipeline("text-generation", model="this folder, or its name on the hub")\n'
        'print(generator("Once")[0]["generated_text"])\n```',
        f"Prompt and continuation have at most {config.block_size} tokens.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def architecture_rows(config: GPTConfig) -> dict[str, str]:
    """Return the shape of a model, in the words of its configuration."""
    names = ["n_layer", "n_head", "n_embd", "block_size", "vocab_size", "position"]
    if config.position == "rope":
        names += ["rope_base", "rope_scale"]
    names += ["window", "bias", "tie_weights", "gelu", "dropout"]
    rows = {name: str(getattr(config, name)) for name in names}
    return {**rows, "n_kv_head": str(config.kv_heads)}


def training_rows(known: History) -> dict[str, str]:
    """Return what is known about the training, in words and numbers with their units."""
    config, step = known.config, known.step
    weights = config.data.mixture or {config.data.source: 1.0}
    texts = {name: data_and_licence(name) for name in sources_of(config.data)}
    share = {name: weights[name] / sum(weights.values()) for name in texts}
    of = {n: f"{share[n]:.3g} of the samples: " if config.data.mixture else "" for n in texts}
    rows = {
        "data": "; ".join(of[name] + data for name, (data, _) in texts.items()),
        "licence of the data": "; ".join(dict.fromkeys(terms for _, terms in texts.values())),
    }
    if config.init_from is not None:
        own = Path(config.init_from)
        hub_name = DATASET.fullmatch(config.init_from) and not expand(own).exists()
        rows["started from the weights of"] = config.init_from if hub_name else own.name
    rows["updates"] = f"{step:,}"
    rows["tokens seen"] = f"{step * config.batch_size * config.model.block_size:,}"
    part = "" if known.whole else ", on a part of the held-out text"
    units = {"loss": " nats per token", "bits_per_byte": ""}
    for name, unit in units.items():
        value = known.scores.get(name)
        said = NOT_KNOWN if value is None else f"{value:.4f}{unit}{part}"
        rows[f"held-out {name.replace('_', ' ')}"] = said
    return rows


def _table(rows: dict[str, str]) -> str:
    cells = {key: " ".join(value.replace("|", r"\|").split()) for key, value in rows.items()}
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in cells.items())])
