"""When not to go on: updates that are not finite, losses that stand out, requests to stop.

One infinite number in a gradient makes every weight NaN at the next step, and a week of training
is lost. Such an update is skipped and counted; several in a row stop the run. A loss far above
the recent ones does no such harm, but is worth a line. Ctrl-C and a scheduler's SIGTERM are
noted, and answered when the update is made.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat
from gpt2lib.training.optim import learning_rate
from gpt2lib.utils.errors import UserError

if TYPE_CHECKING:
    from torch.amp import GradScaler

logger = logging.getLogger(__name__)

MEMORY = 0.99
"""What a step leaves of the running mean: the mean is over about the last 100 losses."""

SURE_AFTER = 2
"""Evaluations without a lower held-out loss after which overfitting is spoken of."""

TRUSTED_AFTER = 50
"""Losses after which the running mean and spread are worth comparing with."""


@dataclass
class Guard:
    """What was seen so far. It is part of a checkpoint, so a resumed run judges the same.

    Attributes:
        skipped: updates that were not made, in all.
        in_a_row: those among them since the last one that was made.
        spikes: losses that stood out.
        seen: losses in the running mean.
        mean: running mean of the loss.
        variance: running variance of the loss.
        lowest: the lowest held-out loss of an evaluation on the way.
        lowest_at: the step of that evaluation.
        mean_then: the running mean of the loss at that step.
        worse: evaluations since then.
    """

    skipped: int = 0
    in_a_row: int = 0
    spikes: int = 0
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0
    lowest: float | None = None
    lowest_at: int = 0
    mean_then: float = 0.0
    worse: int = 0

    def non_finite(
        self, loss: float, grad_norm: float, scaler: GradScaler | None = None
    ) -> str | None:
        """Say why an update must not be made, and count it; None if it may.

        Args:
            loss: mean loss of the update's tokens.
            grad_norm: norm of its gradient, before clipping.
            scaler: fp16's, which multiplies the loss. While its scale is above 1, an infinite
                gradient may be the scale's fault: the update is skipped and the scale lowered,
                but the run itself is sound.
        """
        values = {"loss": loss, "gradient": grad_norm}
        found = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if not found:
            self.in_a_row = 0
            return None
        scale = 1.0
        if scaler is not None:
            scale = scaler.get_scale()
            scaler.update()  # it has seen the infinite gradient
        self.skipped += 1
        self.in_a_row += not (math.isfinite(loss) and scale > 1)
        return ", ".join(found)

    def too_many(self, step: int, reason: str, batch: Path, config: TrainConfig) -> UserError:
        """Return what stops a run in which more than `max_skipped` updates in a row were skipped.

        `step` is the last of them, `reason` is why, and `batch` the file with what it read.
        """
        return UserError(
            f"{self.in_a_row} updates in a row had a loss or gradient that is not finite "
            f"(step {step}: {reason}; max_skipped {config.max_skipped}); the weights have "
            f"not changed since step {step - self.in_a_row}, and the last batch is in "
            f"{batch}. Start again "
            f"from a checkpoint with --init_from and an optim.lr below {config.optim.lr:g}"
        )

    def spike(self, loss: float, threshold: float) -> bool:
        """Say whether a loss stands out from the recent ones, and add it to them.

        Args:
            loss: mean loss of the update's tokens, finite.
            threshold: standard deviations above the running mean that count as standing out;
                before there are `TRUSTED_AFTER` losses, it is twice the mean that does.
        """
        above = loss - self.mean
        # The first losses fall fast, and their spread says little; but none of them doubles.
        usual = threshold * math.sqrt(self.variance) if self.seen >= TRUSTED_AFTER else self.mean
        stands_out = self.seen > 0 and above > usual
        self.spikes += stands_out
        # The first losses count as in a plain mean, later ones as in a moving one.
        share = max(1 / (self.seen + 1), 1 - MEMORY)
        self.mean += share * above
        self.variance = (1 - share) * (self.variance + share * above**2)
        self.seen += 1
        return stands_out

    def held_out(self, step: int, loss: float) -> None:
        """Note a held-out loss; say so when it has risen, or not fallen, for the second time.

        Where the training loss falls on, what is learned from then on is that text by heart.
        """
        if self.lowest is None or loss < self.lowest:
            self.lowest, self.lowest_at, self.worse = loss, step, 0
            self.mean_then = self.mean
            return
        self.worse += 1
        if self.worse == SURE_AFTER:
            by_heart = self.mean < self.mean_then
            logger.warning(
                "%sthe held-out loss was lowest at step %d (%.4f), and twice since then it was not "
                "lower (%.4f now)%s",
                *("overfitting: " * by_heart, self.lowest_at, self.lowest, loss),
                f", while the training loss fell to {self.mean:.4f}" * by_heart,
            )


def odd_settings(config: TrainConfig) -> list[str]:
    """Say what settings do that is seldom meant: nothing reads a field, or a rate is never had."""
    values, steps, optim = flat(config.to_dict()), config.steps, config.optim
    said = [
        f"{name} is {values[name]}, but nothing reads it: {why}"
        for name, why in config.unused().items()
    ]
    last = learning_rate(steps - 1, steps, optim)
    if steps <= optim.warmup_steps:
        said.append(
            f"the learning rate only rises, up to {last:g} of {optim.lr:g}: optim.warmup_steps is "
            f"{optim.warmup_steps} of {steps} steps"
        )
    if last == 0:
        said.append("the last update changes nothing: its rate is 0, as optim.min_lr is")
    return said


CAUGHT: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform == "win32":  # a process started in a group of its own can only be sent this one
    CAUGHT = (*CAUGHT, signal.SIGBREAK)


class Interrupted(Exception):
    """A run stopped because it was asked to, and can be continued.

    Attributes:
        signum: the signal; a process that stops because another one was asked to has SIGTERM.
        step: updates made.
    """

    def __init__(self, signum: int, run: Path, step: int) -> None:
        self.signum = signum or int(signal.SIGTERM)
        self.step = step
        super().__init__(
            f"stopped at step {step}; a checkpoint is written. "
            f"The same command with --out {run} goes on from there"
        )


class StopRequest:
    """While open, notes the first SIGINT or SIGTERM instead of dying from it.

    A second one leaves at once, as the system would have it.

    Attributes:
        signum: the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}
        self._saved: tuple[Path, int] | None = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there is it allowed
            self._before = {number: signal.signal(number, self._note) for number in CAUGHT}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def leave_at_once(self, run: Path, step: int) -> None:
        """From now on raise `Interrupted` when a signal comes, and now if one has come.

        For work that can be dropped anywhere, because all before it is saved.
        """
        self._saved = run, step
        if self.signum:
            raise Interrupted(self.signum, run, step)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self.__exit__()
        if self._saved is not None:
            raise Interrupted(signum, *self._saved)
