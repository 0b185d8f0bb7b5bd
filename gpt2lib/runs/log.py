"""What a run tells while it goes on: lines in its folder, a progress bar, and trackers."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lib.runs import checkpoint
from gpt2lib.utils.files import flush, writing
from gpt2lib.utils.formats import read_jsonl, to_json
from gpt2lib.utils.progress import progress_bar

if TYPE_CHECKING:
    from gpt2lib.runs.trackers import Trackers

logger = logging.getLogger(__name__)

Meter = Callable[[float], dict[str, float]]
"""Tells what is made of the devices, from the tokens of a second."""

Watch = Callable[[dict[str, Any]], None]
"""Gets each line once it is written; what it raises ends the run as it is, to go on later."""


class RunLog:
    """Writes down what happens, and keeps the time; only the main process writes.

    Args:
        folder: the run's; it gets the lines.
        steps: updates of the whole run.
        step: updates made so far.
        spent: seconds in updates, in evaluations and in saving so far; more are added.
        meter: gives further numbers for each update; None in the processes that write nothing.
        trackers: get the numbers of every line.
        watch: gets every line.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        step: int,
        spent: dict[str, float],
        meter: Meter | None,
        trackers: Trackers | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.folder, self.spent, self.meter, self.trackers = folder, spent, meter, trackers
        self.watch = watch
        self.bar = progress_bar(steps, "step", shown=meter is not None, initial=step)
        self.seconds = 0.0

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the progress bar as it is, and let trackers send what they still hold."""
        self.bar.close()
        if self.trackers is not None:
            self.trackers.finish()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds that the block takes to `spent[what]`."""
        started = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - started
        self.spent[what] += self.seconds

    def update(self, step: int, n_tokens: float, spike: bool, **values: float) -> None:
        """Write the line of an update that was made and timed, and move the progress bar.

        Args:
            step: updates so far, this one included.
            n_tokens: that it read, over all processes.
            spike: whether its loss stood out.
            values: loss, lr and so on.
        """
        speed = n_tokens / self.seconds
        self.bar.set_postfix(loss=f"{values['loss']:.3f}", tok_s=f"{speed:,.0f}", refresh=False)
        self.bar.update()
        if self.meter is not None:
            mark = {"spike": True} if spike else {}
            if spike:
                self.say(f"step {step}: the loss {values['loss']:.3f} stands out from those before")
            pace = {"tokens_per_second": round(speed, 1), "seconds": round(self.spent["update"], 3)}
            self._line("metrics.jsonl", step, **values, **mark, **pace, **self.meter(speed))

    def skipped(self, step: int, why: str, in_a_row: int) -> None:
        """Write that an update was not made."""
        self.bar.update()
        self.say(f"step {step}: skipped, {why} ({in_a_row} in a row)")
        self._line("metrics.jsonl", step, skipped=why, in_a_row=in_a_row)

    def evaluation(self, step: int, scores: dict[str, Any], complete: bool) -> None:
        """Write what an evaluation found, in the units of the folder's files.

        Args:
            step: updates so far.
            scores: `loss` and `bits_per_byte` of held-out text, and a `sample`; any may be absent.
            complete: whether it was made on all held-out text, after the last update.
        """
        mark = {"complete": True} if complete else {}
        if "loss" in scores:
            loss, bits = scores["loss"], scores["bits_per_byte"]
            self._line("metrics.jsonl", step, val_loss=loss, val_bits_per_byte=bits, **mark)
            if not complete:
                self.say(f"step {step}: held out {loss:.3f}, {bits:.3f} bits per byte")
        if "sample" in scores:
            self._line("samples.jsonl", step, text=scores["sample"], **mark)

    def totals(self, n_tokens: int) -> dict[str, float]:
        """Return what a run that read so many tokens took, as `result.json` holds it."""
        lines = read_jsonl(self.folder / "metrics.jsonl", "step")
        learned = [line["targets"] for line in lines if "targets" in line]
        seconds = {"train": "update", "evaluate": "evaluate", "save": "save"}
        return {
            "train_tokens": n_tokens,
            **({"train_targets": int(sum(learned))} if learned else {}),
            **{f"{name}_seconds": round(self.spent[what], 1) for name, what in seconds.items()},
            "tokens_per_second": round(n_tokens / self.spent["update"], 1),
        }

    def best(self, kept: bool) -> checkpoint.Best | None:
        """Return the best checkpoint, if any; say it where a better model was not saved.

        Args:
            kept: whether the best one is to be kept.
        """
        found = checkpoint.best(self.folder)
        if found is None or not kept:
            return found
        lines = read_jsonl(self.folder / "metrics.jsonl", "step")
        losses = [(m["val_loss"], m["step"]) for m in lines if "val_loss" in m]
        lowest, step = min(losses, default=(found.val_loss, found.step))
        if lowest < found.val_loss and step < lines[-1]["step"]:
            logger.warning(
                "the lowest held-out loss was %.4f at step %d, where no checkpoint was written; "
                "the best that is kept is of step %d (%.4f). With eval_every a multiple of "
                "save_every each model that is evaluated is saved",
                *(lowest, step, found.step, found.val_loss),
            )
        return found

    def say(self, message: str) -> None:
        """Print a line on stderr, above the progress bar."""
        if self.meter is not None:
            self.bar.write(message, file=sys.stderr)

    def _line(self, file: str, step: int, **values: Any) -> None:
        if self.meter is None:
            return
        write_line(self.folder / file, {"step": step, **values})
        if self.trackers is not None:
            self.trackers.log(step, **values)
        if self.watch is not None:
            self.watch({"step": step, **values})


def write_line(path: Path, values: dict[str, Any]) -> None:
    """Append a line to a `.jsonl` file.

    Raises:
        UserError: if the disk refuses.
    """
    with writing(path), path.open("a", encoding="utf-8") as lines:
        lines.write(to_json(values) + "\n")


def flush_logs(folder: Path) -> None:
    """Have the system write the log lines to the disk: a checkpoint must not outlive them.

    Raises:
        UserError: if the disk refuses.
    """
    for path in sorted(folder.glob("*.jsonl")):
        with writing(path):
            flush(path)
