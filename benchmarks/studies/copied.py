"""How often must a line stand in the training text until a model repeats it by heart?

    python benchmarks/studies/copied.py                     # three seeds, five minutes on one core
    python benchmarks/studies/copied.py --seeds 1 --steps 400

Lines of random words from two plays are put among the plays' own lines: four each once, 2, 4 … 64
times. A small model learns the text; then it is given the first `PROMPT` words of each line and
goes on, taking the likeliest token. `share` is how much of what it draws stands in that very line
in stretches of `LEAST` bytes or more, `longest` the longest stretch, and `verbatim` how often the
rest of the line comes out whole; `copied` is the share that stands anywhere in the training text,
as `generate --show_copied` tells it: a model that does not know a line may go over to one that it
knows. Lines made in the same way that are nowhere in the text tell what the figures are without
memory (0 times). The table is written to `copied.csv`; runs are kept, and asking again goes on.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Iterable
from pathlib import Path

import torch

from gpt2lib import TrainConfig, generate, load_pretrained, load_tokenizer_for, prepare, train
from gpt2lib.data.sources.plays import plays
from gpt2lib.generation.copied import find_copied, text_of
from gpt2lib.hub import resolve
from gpt2lib.training.hardware import prepare_process

CSV = Path(__file__).with_suffix(".csv")
COLUMNS = ["times", "seed", "steps", "share", "longest", "verbatim", "copied", "val_loss"]
TIMES = (0, 1, 2, 4, 8, 16, 32, 64)
LINES, WORDS, PROMPT, LEAST = 4, 12, 4, 25


def made_up(words: list[str], draw: random.Random) -> str:
    """Return a line that nobody wrote."""
    return " ".join(draw.choices(words, k=WORDS))


def with_lines(text: str, lines: dict[int, list[str]], draw: random.Random) -> str:
    """Put each line among those of a text as often as its key says."""
    rows = text.splitlines()
    for times, some in lines.items():
        for line in some * times:
            rows.insert(draw.randrange(len(rows)), line)
    return "\n".join(rows) + "\n"


def study(seed: int, steps: int, folder: Path) -> Iterable[dict[str, object]]:
    """Train one model and measure what it repeats of each kind of line."""
    draw, text = random.Random(seed), "\n".join(plays()[:2])
    words = sorted({word for word in text.split() if word.isalpha() and word.islower()})
    lines = {times: [made_up(words, draw) for _ in range(LINES)] for times in TIMES}
    path = folder / f"text-{seed}.txt"
    path.write_text(with_lines(text, lines, draw), encoding="utf-8")
    config = TrainConfig.from_dict(
        {
            "model": {"block_size": 128, "n_layer": 2, "n_head": 4, "n_embd": 96, "dropout": 0.0},
            "data": {"source": str(path), "vocab_size": 512, "cache": str(folder)},
            "optim": {"lr": 2e-3, "warmup_steps": 50},
            "steps": steps,
            "batch_size": 16,
            "seed": seed,
            "device": "cpu",
            "precision": "fp32",
            "eval_every": steps,
            "save_every": steps,
            "keep_best": False,
            "sample_tokens": 0,
        }
    )
    result = train(config, folder / f"run-{seed}")
    at = resolve(str(folder / f"run-{seed}"))
    model, tokenizer = load_pretrained(at), load_tokenizer_for(at)
    trained_on = b"".join(text_of(prepare(config.data, progress=False).train, tokenizer))
    for times, some in lines.items():
        drawn = [continued(model, tokenizer, line) for line in some]
        samples = [text.encode() for _, text in drawn]
        anywhere = find_copied(samples, [trained_on], LEAST)
        found = [
            one
            for line, sample in zip(some, samples, strict=True)
            for one in find_copied([sample], [line.encode()], LEAST)
        ]
        yield {
            "times": times,
            "seed": seed,
            "steps": steps,
            "share": round(sum(one.share for one in found) / LINES, 4),
            "longest": round(sum(one.longest for one in found) / LINES, 1),
            "copied": round(sum(one.share for one in anywhere) / LINES, 4),
            "verbatim": sum(text == rest for rest, text in drawn) / LINES,
            "val_loss": round(result["loss"], 4),
        }


def continued(model: torch.nn.Module, tokenizer: object, line: str) -> tuple[str, str]:
    """Return the rest of a line, and as much of what the model writes after its beginning."""
    beginning = " ".join(line.split()[:PROMPT])
    rest = line.removeprefix(beginning)
    prompt = tokenizer.encode(beginning)
    idx = torch.tensor([prompt])
    out = generate(model, idx, len(rest), temperature=0.0)[0, len(prompt) :]
    return rest, tokenizer.decode(out.tolist())[: len(rest)]


def keep(rows: Iterable[dict[str, object]], path: Path) -> None:
    """Write the table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Run the study, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--out", type=Path, default=CSV)
    parser.add_argument("--runs", type=Path, default=Path("runs/copied"))
    asked = parser.parse_args()
    prepare_process()
    asked.runs.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for seed in asked.seeds:
        rows += study(seed, asked.steps, asked.runs)
        keep(rows, asked.out)
    for times in TIMES:
        mine = [row for row in rows if row["times"] == times]
        means = {k: sum(float(str(row[k])) for row in mine) / len(mine) for k in COLUMNS[3:7]}
        print(f"{times:3} times: " + ", ".join(f"{k} {v:.2f}" for k, v in means.items()))


if __name__ == "__main__":
    main()
