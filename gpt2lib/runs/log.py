"""What a run tells while it goes on: lines in its folder, a progress bar, and trackers."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from tqdm.auto import tqdm

from gpt2lib.runs.folder import Run
from gpt2lib.runs.trackers import Trackers


class Gauge(Protocol):
    """Tells what is made of the devices, from the tokens of a second."""

    def read(self, tokens_per_second: float) -> dict[str, float]:
        """Return numbers for the log."""
        ...


class Journal:
    """Writes down what happens; only the main process writes.

    Args:
        run: whose folder gets the lines.
        steps: updates of the whole run.
        step: updates made so far.
        is_main: whether this is the process that writes.
        trackers: get the numbers of every line.
        gauge: tells what is made of the devices.
    """

    def __init__(
        self, run: Run, steps: int, step: int, is_main: bool, trackers: Trackers, gauge: Gauge
    ) -> None:
        self.run, self.is_main, self.trackers, self.gauge = run, is_main, trackers, gauge
        self.bar = tqdm(total=steps, initial=step, unit="step", disable=not is_main)

    def update(self, step: int, spent: float, tokens_per_second: float, **values: float) -> None:
        """Write the line of an update that was made, and move the progress bar.

        Args:
            step: updates so far, this one included.
            spent: seconds in updates since the beginning of the run.
            tokens_per_second: of this update, over all processes.
            values: loss, lr and so on.
        """
        self.bar.set_postfix(
            loss=f"{values['loss']:.3f}", tok_s=f"{tokens_per_second:,.0f}", refresh=False
        )
        self.bar.update()
        speed, seconds = round(tokens_per_second, 1), round(spent, 3)
        cost = self.gauge.read(tokens_per_second) if self.is_main else {}
        self._line("metrics", step, **values, tokens_per_second=speed, seconds=seconds, **cost)

    def skipped(self, step: int, why: str, in_a_row: int) -> None:
        """Write that an update was not made."""
        self.bar.update()
        self.say(f"step {step}: skipped, {why} ({in_a_row} in a row)")
        self._line("metrics", step, skipped=why, in_a_row=in_a_row)

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
            self._line("metrics", step, val_loss=loss, val_bits_per_byte=bits, **mark)
            if not complete:
                self.say(f"step {step}: held out {loss:.3f}, {bits:.3f} bits per byte")
        if "sample" in scores:
            self._line("samples", step, text=scores["sample"], **mark)

    def say(self, message: str) -> None:
        """Print a line on stderr, above the progress bar."""
        if self.is_main:
            self.bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the progress bar as it is, and let trackers send what they still hold."""
        self.bar.close()
        self.trackers.finish()

    def _line(self, file: str, step: int, **values: Any) -> None:
        if self.is_main:
            self.run.log(f"{file}.jsonl", step=step, **values)
            self.trackers.log(step, **values)
