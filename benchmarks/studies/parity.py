"""The same numbers here and in transformers: every model that can be exported, both ways.

    python benchmarks/studies/parity.py [--all]

For each positions, key/value heads and window it prints the class of transformers, and the
largest difference of a logit over all biases, tying and GELUs (a row each with `--all`):

- out: our model against transformers' of its export;
- back: a model that transformers wrote, with random weights of its own, against ours of it.

All in float32 on the CPU, two layers, a whole block of random tokens. The tests hold each
difference below 1e-5.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "hub"))

from transformers_twin import Parity, parity, patterns, variants

from gpt2lib.config import GPTConfig


def row(config: GPTConfig, found: list[Parity], more: str = "") -> str:
    """Write one line of the table: the worst of what was found."""
    position = config.position
    if config.rope_scale != 1:
        position += f", base {config.rope_base:g}, scale {config.rope_scale:g}"
    worst = [max(getattr(p, name) for p in found) for name in ("out", "back", "size")]
    heads = f"{config.kv_heads} of {config.n_head}"
    numbers = " | ".join([f"{worst[0]:.1e}", f"{worst[1]:.1e}", f"{worst[2]:.1f}"])
    window = config.window or "none"
    return f"| {position} | {heads} | {window} |{more} {found[0].architecture} | {numbers} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="a row for each bias, tying and GELU")
    everything = parser.parse_args().all
    logging.getLogger("gpt2lib").setLevel(logging.ERROR)  # repeated heads: the table shows them
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    more = " bias | tied | GELU |" if everything else ""
    print(f"| positions | kv heads | window |{more} class | out | back | largest logit |")
    print("| --- | --- | --- |" + " --- | --- | --- |" * everything + " --- | --- | --- | --- |")
    for pattern in patterns():
        found = []
        for config in variants(pattern):
            with tempfile.TemporaryDirectory() as folder:
                found.append(parity(config, Path(folder)))
            if everything:
                parts = (config.bias, config.tie_weights, config.gelu)
                print(row(config, found[-1:], "".join(f" {part} |" for part in parts)))
        if not everything:
            print(row(pattern, found), flush=True)


if __name__ == "__main__":
    main()
