"""Which part of a model to train on how much new text, at which rate: the study behind the plan.

A model learns the plays without the histories. Then it is fine-tuned on the first bytes of some
histories, by every method at every rate, and judged on histories that it has never seen, and on
the text that it had learned before, held out too:

    python benchmarks/studies/finetune.py --out benchmarks/studies/finetune.csv --seeds 3

A line of the CSV is a run: the lowest held-out loss on its way, the step of it, and what the model
then makes of the old text. Rows that are there already are not run again.
"""

from __future__ import annotations

import argparse
import csv
import math
import platform
import tempfile
from pathlib import Path
from typing import Any

from gpt2lib.config import TrainConfig
from gpt2lib.data import prepare
from gpt2lib.data.sources.plays import play_paths, plays
from gpt2lib.hub import load_pretrained
from gpt2lib.runs.folder import RESULT
from gpt2lib.training.evaluation import score
from gpt2lib.training.hardware import prepare_process
from gpt2lib.training.loop import train
from gpt2lib.training.methods import choose_parameters, trained_parameters
from gpt2lib.utils.formats import read_json

HISTORIES = slice(8, 19)
"""Where they lie in the list of the plays, sorted."""
HELD_OUT = 2
"""How many of the histories are never trained on."""
SIZES = (10_000, 32_000, 100_000, 1_000_000)
METHODS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "full": ({"name": "full"}, (1e-4, 3e-4, 1e-3, 3e-3)),
    "last-1": ({"name": "last-k", "k": 1}, (1e-4, 3e-4, 1e-3, 3e-3)),
    "last-2": ({"name": "last-k", "k": 2}, (1e-4, 3e-4, 1e-3, 3e-3)),
    "lora-4": ({"name": "lora", "rank": 4, "alpha": 8.0}, (3e-4, 1e-3, 3e-3, 1e-2)),
    "lora-16": ({"name": "lora", "rank": 16, "alpha": 32.0}, (3e-4, 1e-3, 3e-3, 1e-2)),
    "head": ({"name": "head"}, (1e-4, 3e-4, 1e-3, 3e-3)),
    "norms": ({"name": "norms"}, (1e-3, 3e-3, 1e-2, 3e-2)),
}
SHAPE = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 64}
COLUMNS = (
    *("method", "bytes", "lr", "seed", "trained", "parameters"),
    *("before", "after", "step", "steps", "old_before", "old_after", "seconds", "machine"),
)


def write_texts(folder: Path) -> dict[str, Path]:
    """Write the old text, and for each size the new one beside what is held out of it."""
    texts, names = plays(), [path.stem for path in play_paths()]
    assert names[HISTORIES][0] == "edward-iii" and names[HISTORIES][-1] == "richard-iii"
    histories = texts[HISTORIES]
    others = [text for text in texts if text not in histories]
    found = {"old": folder / "old"}
    sides = {"train": others[:-2], "validation": others[-2:]}
    for side, some in sides.items():
        write(found["old"] / f"{side}.txt", "".join(some))
    new = "".join(histories[:-HELD_OUT]).encode()
    for size in SIZES:
        found[str(size)] = folder / str(size)
        write(found[str(size)] / "train.txt", new[:size].decode(errors="ignore"))
        write(found[str(size)] / "validation.txt", "".join(histories[-HELD_OUT:])[:60_000])
    return found


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def settings(source: Path, cache: Path, **changes: Any) -> TrainConfig:
    """Return a run's settings."""
    common = {
        "model": SHAPE,
        "data": {"source": str(source), "vocab_size": 1024, "cache": str(cache)},
        "batch_size": 16,
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 20,
        "eval_batches": 10_000,  # all of what is held out
        "save_every": 20,
        "keep": 1,
        "sample_tokens": 0,
    }
    return TrainConfig.from_dict({**common, **changes})


def main() -> None:
    """Make the base model, then every run that is not in the CSV yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base_steps", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="where runs and texts lie; else a new one")
    given = parser.parse_args()
    prepare_process()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="finetune-"))
    texts, base = write_texts(folder), folder / "base"
    optim = {"lr": 3e-3, "warmup_steps": 100}
    start = settings(
        texts["old"],
        folder / "cache",
        optim=optim,
        steps=given.base_steps,
        eval_every=500,
        eval_batches=20,
        save_every=1000,
    )
    train(start, base)
    done = read_rows(given.out)
    for seed in range(given.seeds):
        for size in SIZES:
            for name, (_, rates) in METHODS.items():
                for lr in rates:
                    if (name, str(size), f"{lr:g}", str(seed)) not in done:
                        row = run(folder, texts[str(size)], base, name, size, lr, seed)
                        append(given.out, row)


def run(
    folder: Path, text: Path, base: Path, name: str, size: int, lr: float, seed: int
) -> dict[str, Any]:
    """Fine-tune once, and return its line."""
    method, _ = METHODS[name]
    out = folder / "runs" / f"{name}-{size}-{lr:g}-{seed}"
    # Up to about ten passes over the text, and no fewer steps than let a slow rate show itself.
    passes = math.ceil(10 * size / 3 / (16 * SHAPE["block_size"]))
    steps = min(600, max(200, 20 * math.ceil(passes / 20)))
    config = settings(
        text,
        folder / "cache",
        optim={"lr": lr, "warmup_steps": 10, "weight_decay": 0.0},
        method=method,
        steps=steps,
        patience=3,
        seed=seed,
        init_from=str(base),
    )
    result = train(config, out)
    lines = [m for m in read_metrics(out) if "val_loss" in m and not m.get("complete")]
    lowest = min(lines, key=lambda line: line["val_loss"])
    best = out / "checkpoints" / str(result["best"]["checkpoint"])
    model = load_pretrained(base)
    choose_parameters(model, config.method)
    return {
        "method": name,
        "bytes": size,
        "lr": f"{lr:g}",
        "seed": seed,
        "trained": trained_parameters(model),
        "parameters": result["parameters"],
        "before": round(lines[0]["val_loss"], 4),
        "after": round(lowest["val_loss"], 4),
        "step": lowest["step"],
        "steps": result["steps"],
        "old_before": round(old_loss(folder, base), 4),
        "old_after": round(old_loss(folder, best), 4),
        "seconds": result["train_seconds"],
        "machine": platform.machine(),
    }


def old_loss(folder: Path, source: Path) -> float:
    """Return what a model makes of the held-out part of the old text."""
    data = settings(folder / "old", folder / "cache").data
    tokens = prepare(data, progress=False).val
    assert tokens is not None
    model = load_pretrained(source)
    return score(model, tokens, model.config.block_size, limit=40)["loss"]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    import json

    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    assert read_json(run / RESULT)
    return [json.loads(line) for line in text.splitlines()]


def read_rows(path: Path) -> set[tuple[str, ...]]:
    """Return what tells the runs apart that a CSV has."""
    if not path.is_file():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {
            tuple(row[n] for n in ("method", "bytes", "lr", "seed")) for row in csv.DictReader(file)
        }


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a line to a CSV."""
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
