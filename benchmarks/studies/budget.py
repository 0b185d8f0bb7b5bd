"""Time, money and memory of GPT-2's sizes on 1, 8 and 64 GPUs, in Markdown. A second; no torch.

    python benchmarks/studies/budget.py [--gpu H100] [--mfu 0.4] [--price 2.5] [--memory 80e9]

FLOPs and bytes are counted; everything else is an assumption, printed below the tables and set by
an option. Nothing here was measured on a GPU. One row of it, or another model:
`gpt2lib estimate gpt2 --gpu H100 --gpus 8 --price 2.5 --tokens 20x --batch_size 512`.
"""

from __future__ import annotations

import argparse
import sys

from gpt2lib.cli.costing import long_duration
from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.estimate import count_parameters, training_flops
from gpt2lib.estimate.budget import (
    MFU,
    TOKENS_PER_PARAMETER,
    Cluster,
    assumed_efficiency,
    budget,
    memory_per_gpu,
)
from gpt2lib.estimate.update import MARGIN
from gpt2lib.utils.errors import UserError

SIZES = {"gpt2": "124M", "gpt2-medium": "350M", "gpt2-xl": "1.5B"}
GPUS = (1, 8, 64)
MANY_TOKENS = 300_000_000_000
"""What nanoGPT reads in its reproduction of GPT-2, and every model of GPT-3 (Brown et al. 2020,
table 2.1). How many GPT-2 itself read was not published."""
BATCH = 512
"""Sequences in an update (Radford et al. 2019, section 2.3)."""

ASSUMPTIONS = """Assumptions, not measurements:

- {tokens} tokens a parameter: the best loss for the FLOPs spent (Hoffmann et al. 2022, table 3). 300B tokens:
  what nanoGPT reads to reproduce GPT-2 124M, and what every model of GPT-3 read (Brown et al. 2020, table 2.1).
- Each GPU reaches {mfu:.0%} of its data sheet's {peak:g} TFLOP/s in {precision} (MFU, `--mfu`). We measured none of this
  on a GPU. For comparison: nanoGPT states about 4 days on 8 A100 for its 300B tokens of 124M, an MFU of {nanogpt:.0%} by this count.
- Of that, {kept} are left on {gpus} GPUs (`gpt2lib estimate --efficiency` sets it).
- A GPU-hour costs {price:g}, in your currency (`--price`); what a GPU costs while it loads data, waits or fails is not counted.
- FLOPs are those of `gpt2lib.estimate.training_flops`: all products, attention over the whole block of 1,024.
- Memory: {precision} autocast, AdamW in float32, no gradient checkpointing, {batch} sequences an update over all GPUs; the
  micro-batch is the largest divisor of a GPU's share that leaves {margin:.0%} of {memory:.0f} GB free. The formula
  (`gpt2lib.estimate.update`) is right within 10 % of an update played on a CPU with the choices of a GPU, and unmeasured on one."""  # noqa: E501


def table_of_time(args: argparse.Namespace) -> list[str]:
    """Return the lines of the table of time and money."""
    head = " | ".join(f"{n} GPU{'s' * (n > 1)} | money" for n in GPUS)
    lines = [f"| model | tokens | FLOPs | {head} |", "| --- " * (3 + 2 * len(GPUS)) + "|"]
    for name, size in SIZES.items():
        model = GPTConfig.preset(name)
        best = TOKENS_PER_PARAMETER * count_parameters(model)
        for tokens in (best, MANY_TOKENS):
            flops = tokens * training_flops(model)
            cells = [size, f"{tokens / 1e9:.3g}B", f"{flops:.2g}"]
            for n in GPUS:
                cluster = Cluster(args.gpu, n, args.mfu, price=args.price)
                found = budget(flops, cluster, cluster.best_precision())
                cells += [long_duration(found["seconds"]), f"{found['money']:,.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def table_of_memory(args: argparse.Namespace, available: int) -> list[str]:
    """Return the lines of the table of memory, with whole copies and with shares."""
    precision = Cluster(args.gpu).best_precision()
    lines = [
        "| model | GPUs | a whole copy on each | micro-batch | spread over them (FSDP2) "
        "| micro-batch |",
        "| --- " * 6 + "|",
    ]
    for name, size in SIZES.items():
        for n in GPUS:
            run = TrainConfig(
                model=GPTConfig.preset(name), batch_size=BATCH, device="cuda", precision=precision
            )
            found = memory_per_gpu(run, n, available)
            cells = [size, str(n)]
            for one in found.values():
                fits = f"{one['peak'] / 1e9:.1f} GB" if one["fits"] else "does not fit"
                cells += [fits, str(one["largest_micro_batch"])]
            lines.append("| " + " | ".join(cells if n > 1 else [*cells[:4], "", ""]) + " |")
    return lines


def document(args: argparse.Namespace) -> str:
    """Return both tables and their assumptions, in Markdown."""
    cluster = Cluster(args.gpu, 1, args.mfu, price=args.price)
    available = int(args.memory or cluster.memory)
    nanogpt = MANY_TOKENS * training_flops(GPTConfig.preset("gpt2")) / (8 * 312e12 * 4 * 86400)
    kept = [f"{assumed_efficiency(n):.0%}" for n in GPUS]
    said = ASSUMPTIONS.format(
        tokens=TOKENS_PER_PARAMETER,
        mfu=args.mfu,
        precision=cluster.best_precision(),
        peak=cluster.peak(cluster.best_precision()) / 1e12,
        nanogpt=nanogpt,
        kept=f"{kept[0]}, {kept[1]} and {kept[2]}",
        gpus=f"{GPUS[0]}, {GPUS[1]} and {GPUS[2]}",
        price=args.price,
        batch=BATCH,
        margin=MARGIN,
        memory=available / 1e9,
    )
    parts = [table_of_time(args), table_of_memory(args, available), [said]]
    return "\n\n".join("\n".join(lines) for lines in parts)


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", default="H100")
    parser.add_argument("--mfu", type=float, default=MFU)
    parser.add_argument("--price", type=float, default=2.5, help="of a GPU for an hour")
    parser.add_argument("--memory", type=float, help="bytes of a GPU; by default the data sheet's")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        print(document(options()))
    except UserError as error:
        sys.exit(f"budget.py: {error}")
