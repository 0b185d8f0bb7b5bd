"""What a checkpoint costs, and its share of the training time.

    python benchmarks/studies/saving.py           # the shapes of the cpu, gpu and gpt2-124m presets
    python benchmarks/studies/saving.py --shapes cpu --updates 20

Trains a few updates of each shape on the bundled plays and saves after each of the last ones,
through the trainer itself. Prints the seconds of a save and of its parts, MB/s, and the share of
the training time at the `save_every` of the preset, from the seconds of an update that were
measured in the same run on the device that is found. The parts: writing the files, flushing them
to the disk (fsync), hashing what was written, and rotation (hashing the checkpoints that stay, to
be sure of them, and deleting the oldest).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

SHAPES = ("cpu", "gpu", "gpt2-124m")
SAVES = 4


def main() -> None:
    """Measure each shape and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--updates", type=int, default=2, help="before the first save")
    parser.add_argument("--batch_size", type=int, help="sequences; by default the preset's")
    parser.add_argument("--folder", help="on which disk; by default the temporary folder")
    options = parser.parse_args()
    from gpt2lib.training.hardware import prepare_process

    prepare_process()
    print(
        "| shape | parameters | checkpoint | a save | write | fsync | hash | rotate | MB/s "
        "| an update | save_every | share |\n|" + "---|" * 12
    )
    for shape in options.shapes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(shape, Path(folder), options.updates, options.batch_size)


def measure(shape: str, folder: Path, updates: int, batch_size: int | None) -> None:
    """Train and save in one shape, and print its line."""
    from gpt2lib import load_config
    from gpt2lib.runs import checkpoint
    from gpt2lib.runs.folder import open_run
    from gpt2lib.training.loop import Trainer
    from gpt2lib.utils import files as storage

    preset = load_config(shape)
    config = preset.replace(
        steps=updates + SAVES,
        batch_size=batch_size or preset.batch_size,
        micro_batch=None if batch_size else preset.micro_batch,
        data=preset.data.replace(source="plays"),
        compile=False,
        keep=2,
        sample_tokens=0,
    )
    until_the_end = ExitStack()
    trainer = Trainer(config, until_the_end.enter_context(open_run(folder / "run", config)))
    log = until_the_end.enter_context(trainer.log)
    parts: Counter[str] = Counter()
    for owner, name, part in (
        (storage, "_seal", "seal"),
        (os, "fsync", "fsync"),
        (checkpoint, "prune", "rotate"),
    ):
        setattr(owner, name, timed(getattr(owner, name), parts, part))
    update_seconds = []
    for step in range(config.steps):
        before = log.spent["update"]
        trainer.update()
        update_seconds.append(log.spent["update"] - before)
        if step == updates:
            trainer.save({})  # the first is not measured: nothing is there to rotate
            parts.clear()
            log.spent["save"] = 0.0
        elif step > updates:
            trainer.save({})
    until_the_end.close()
    n = SAVES - 1
    seconds = log.spent["save"] / n
    fsync, seal, rotate = (parts[name] / n for name in ("fsync", "seal", "rotate"))
    size = sum(p.stat().st_size for p in checkpoint.checkpoints(folder / "run")[-1].rglob("*"))
    update = sorted(update_seconds)[len(update_seconds) // 2]
    every = preset.save_every
    share = seconds / (seconds + every * update)
    print(
        f"| {shape} | {trainer.raw_model.num_parameters():,} | {size / 1e6:,.1f} MB "
        f"| {seconds:.3f} s | {seconds - seal - rotate:.3f} s | {fsync:.3f} s "
        f"| {max(0.0, seal - fsync):.3f} s | {rotate:.3f} s | {size / 1e6 / seconds:,.0f} "
        f"| {update:.3f} s ({config.batch_size}×{config.model.block_size}) | {every:,} "
        f"| {100 * share:.2f} % |",
        flush=True,
    )


def timed(function: Callable[..., Any], seconds: Counter[str], part: str) -> Callable[..., Any]:
    """Add the seconds of each call to `seconds[part]`."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - started  # type: ignore[assignment]

    return wrapped


if __name__ == "__main__":
    main()
