"""The training loop, on Accelerate.

One update: take the next `batch_size` windows of the text, in micro-batches; add up their
gradients; clip; step. The order of the data is a function of (seed, sample index) and the
learning rate of the step, so the position of a run is one integer. A checkpoint adds weights,
optimiser and random state, and a resumed run goes on bitwise as if it had never stopped.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from gpt2lib.config import TrainConfig
from gpt2lib.data.loader import Loader, MicroBatch
from gpt2lib.runs.folder import Run, open_run
from gpt2lib.runs.log import RunLog, Watch, flush_logs
from gpt2lib.runs.trackers import start_trackers
from gpt2lib.training.distributed import explain_a_lost_process
from gpt2lib.training.evaluation import Evaluator
from gpt2lib.training.guard import Interrupted, StopRequest
from gpt2lib.training.hardware import MfuMeter, explain_a_failed_compilation
from gpt2lib.training.methods import trained_parameters
from gpt2lib.training.optim import learning_rate, make_optimizer, set_learning_rate
from gpt2lib.training.setup import set_up
from gpt2lib.training.state import Progress, TrainingState
from gpt2lib.utils.process import give_back_freed_memory, sum_over_processes, whole


def train(
    config: TrainConfig, out: str | Path, resume: str = "auto", watch: Watch | None = None
) -> dict[str, Any]:
    """Train a model, or go on training it, and return the result.

    Args:
        config: the whole run.
        out: the run's folder.
        resume: "auto" continues the run that lies in `out`, if any; "never" wants a new folder;
            anything else is the path of a checkpoint to continue from.
        watch: gets each line of the run's logs; what it raises ends the run.

    Returns:
        What `result.json` holds: held-out `loss`, `perplexity`, `bits_per_byte` and `tokens`, and
        what was spent. `already_complete` says whether the run was complete before.

    Raises:
        UserError: for input that cannot be used, in one line; nothing is overwritten.
        Interrupted: after SIGINT or SIGTERM, once a checkpoint is written.
    """
    with open_run(Path(out), config, resume) as run:
        if run.state == "complete":
            return {**run.result, "already_complete": True}
        run.begin(config)
        try:
            return {**Trainer(config, run, watch).run(), "already_complete": False}
        except RuntimeError as error:
            explain_a_lost_process(error)
            explain_a_failed_compilation(error)
            raise


class Trainer:
    """A run in progress.

    Attributes:
        config: the run's configuration with every "auto" resolved.
        model: the model as it trains, wrapped for processes and precision, around `raw_model`.
        step: updates made so far, those skipped among them.
        guard: updates skipped, and losses that stood out.
        log: writes down what happens, and keeps the time.
    """

    def __init__(self, config: TrainConfig, run: Run, watch: Watch | None = None) -> None:
        self.config, self.accelerator, self.data, self.raw_model = set_up(config, run)
        config, accelerator = self.config, self.accelerator
        self.folder, self.write_result = run.folder, run.write_result
        processes, device = accelerator.num_processes, accelerator.device
        self.loader = Loader(config, self.data, accelerator.process_index, processes, device)
        self.raw_optimizer = make_optimizer(self.raw_model, config.optim, config.precision)
        self.n_read = config.batch_size * config.model.block_size  # tokens of an update
        self.max_norm = config.optim.grad_clip or math.inf  # the norm is wanted in any case
        if config.compile:
            self.raw_model.compile()  # in place: the parameters keep their names
        self.model, self.optimizer = accelerator.prepare(self.raw_model, self.raw_optimizer)
        self.state = TrainingState(
            self.raw_model, self.raw_optimizer, self.data, accelerator, config
        )
        saved = Progress() if run.checkpoint is None else self.state.load(run.checkpoint)
        self.step, self.first, self.guard = saved.step, saved.step + 1, saved.guard
        self.stop = StopRequest()
        meter = trackers = None
        if accelerator.is_main_process:  # it alone writes
            run.tidy(config, self.step)
            meter = MfuMeter(config, device.type, processes)
            if config.trackers:
                trackers = start_trackers(accelerator, run.folder, config, self.step)
        self.log = RunLog(run.folder, config.steps, self.step, saved.spent, meter, trackers, watch)
        self.evaluator = Evaluator(
            self.model, self.raw_model, self.data, self.loader, accelerator, config, self.log
        )

    def run(self) -> dict[str, Any]:
        """Train to the end, evaluate on all held-out text, and return the result."""
        config = self.config
        with self.log, self.stop:
            if self.step == 0:
                self.evaluate()
            while not self.done:
                asked_to_stop = self.update()
                if self.step == self.first:  # the moments were made among what the passes freed
                    give_back_freed_memory()
                due = self.step % config.eval_every == 0 and self.step < config.steps
                scores = self.evaluate() if due else {}
                done = self.done
                if done and config.keep_best and not scores:  # as much text as on the way
                    scores = self.evaluator.score()
                if asked_to_stop or done or self.step % config.save_every == 0:
                    self.save(scores)
                if asked_to_stop:
                    raise Interrupted(self.stop.signum, self.folder, self.step)
            # Everything is saved: the last evaluation, of all held-out text, need not end.
            self.stop.leave_at_once(self.folder, self.step)
            return self.finish()

    @property
    def done(self) -> bool:
        """Whether all steps are made, or patience is at its end."""
        patience = self.config.patience or math.inf
        return self.step == self.config.steps or self.guard.worse >= patience

    def evaluate(self) -> dict[str, Any]:
        """Score some held-out text on the way, and say it where the loss falls no more."""
        scores = self.evaluator.evaluate(self.step)
        if scores:
            self.guard.held_out(self.step, scores["loss"])
        return scores

    def update(self) -> bool:
        """Make one update of the weights; return whether any process was asked to stop."""
        config, accelerator = self.config, self.accelerator
        with self.log.timed("update"):
            lr = learning_rate(self.step, config.steps, config.optim)
            set_learning_rate(self.raw_optimizer, lr)
            micro_batches = self.loader.micro_batches(self.step)
            targets = sum(micro_batch.n_targets for micro_batch in micro_batches)
            (n_tokens,) = sum_over_processes(accelerator, targets)
            summed = self.backward(micro_batches, n_tokens)
            norm = accelerator.clip_grad_norm_(self.raw_model.parameters(), self.max_norm)
            summed, stops = sum_over_processes(accelerator, summed, self.stop.signum != 0)
            loss, grad_norm = summed / n_tokens, whole(norm).item()
            # One NaN or infinity in a gradient would spread into every weight.
            reason = self.guard.non_finite(loss, grad_norm, accelerator.scaler)
            if reason is None:
                self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
        if reason is None:
            spike = self.guard.spike(loss, config.spike_threshold)
            learned = {} if self.data.train.marks is None else {"targets": n_tokens}
            self.log.update(
                self.step, self.n_read, spike, loss=loss, lr=lr, grad_norm=grad_norm, **learned
            )
        else:
            self.log.skipped(self.step, reason, self.guard.in_a_row)
            if self.guard.in_a_row > config.max_skipped:
                self.state.give_up(self.folder, self.step, reason, micro_batches, self.guard)
        return stops > 0

    def backward(self, micro_batches: list[MicroBatch], n_tokens: float) -> float:
        """Add up the gradients of the mean loss over `n_tokens`; return this process's summed loss.

        Sums and one common count: means of micro-batches with different counts of targets
        cannot be averaged.
        """
        # DDP averages gradients over processes; times their number, the average is the sum.
        scale = self.accelerator.num_processes / n_tokens
        total = torch.zeros((), device=self.accelerator.device)
        self.model.train()
        for i, micro_batch in enumerate(micro_batches):
            # The gradients are exchanged once, with the last micro-batch.
            last = i == len(micro_batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss, _ = self.model(*micro_batch)
                self.accelerator.backward(loss * scale)
            total += loss.detach()
        return total.item()

    def save(self, scores: dict[str, Any]) -> None:
        """Write a checkpoint; `scores` are those of an evaluation at this very step, if any."""
        with self.log.timed("save"):
            held_out = scores.get("loss"), scores.get("tokens")
            progress = Progress(self.step, self.log.spent, self.guard, *held_out)
            if self.accelerator.is_main_process:
                flush_logs(self.folder)  # a checkpoint must not outlive the lines before it
            self.state.save(self.folder, progress)

    def finish(self) -> dict[str, Any]:
        """Score all held-out text and write the result, which makes the run complete."""
        result = {
            **self.evaluator.evaluate(self.step, full=True),
            "steps": self.step,
            "parameters": self.raw_model.num_parameters(),
            "trained_parameters": trained_parameters(self.raw_model),
            **self.log.totals(self.step * self.n_read),
            "skipped": self.guard.skipped,
            "spikes": self.guard.spikes,
            "precision": self.config.precision,
            "device": self.accelerator.device.type,
            "processes": self.accelerator.num_processes,
        }
        if self.accelerator.is_main_process:
            if found := self.log.best(self.config.keep_best):
                result["best"] = found._asdict()
            self.write_result(result)
        self.accelerator.wait_for_everyone()
        return result
