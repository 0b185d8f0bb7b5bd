"""The training loop, on Accelerate.

One update: take the next `batch_size` windows of the text, in pieces of `micro_batch`; add up
their gradients; clip; step. The order of the data is a function of (seed, sample index) and the
learning rate a function of the step, so the whole position of a run is one integer. A
checkpoint adds weights, optimiser state and random state, and a resumed run goes on bitwise as
if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from gpt2lib.config import TrainConfig
from gpt2lib.data.loader import Feed, MicroBatch
from gpt2lib.generation.generator import generate
from gpt2lib.model.gpt import GPT
from gpt2lib.runs.checkpoint import best
from gpt2lib.runs.folder import Run
from gpt2lib.runs.log import Journal
from gpt2lib.runs.resume import open_run
from gpt2lib.runs.trackers import start_trackers
from gpt2lib.training.evaluation import score
from gpt2lib.training.guard import Health
from gpt2lib.training.mfu import Gauge
from gpt2lib.training.optim import learning_rate, make_optimizer, set_learning_rate
from gpt2lib.training.setup import one_line_when_others_end, start
from gpt2lib.training.signals import Interrupted, StopRequest
from gpt2lib.training.state import Progress, TrainingState
from gpt2lib.utils.allocator import give_back_freed_memory
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.sharded import whole


def train(config: TrainConfig, out: str | Path, resume: str = "auto") -> dict[str, Any]:
    """Train a model, or go on training it, and return the result.

    Args:
        config: the whole run.
        out: the run's folder.
        resume: "auto" continues the run that lies in `out`, if any; "never" wants a new folder;
            anything else is the path of a checkpoint to continue from.

    Returns:
        What `result.json` holds: held-out `loss`, `perplexity`, `bits_per_byte` and `tokens`, and
        what was spent. `already_complete` says whether the run was complete before.

    Raises:
        UserError: for input that cannot be used, in one line; nothing is overwritten.
        Interrupted: after SIGINT or SIGTERM, once a checkpoint is written.
    """
    run = open_run(Path(out), config, resume)
    with run.lock():
        if run.has_moved_on():  # another process trained here just before the lock was free
            run = open_run(Path(out), config, resume)
        if run.result is not None:
            return {**run.result, "already_complete": True}
        run.begin(config)
        with one_line_when_others_end():
            return {**Trainer(config, run).run(), "already_complete": False}


class Trainer:
    """A run in progress.

    Attributes:
        config: the run's configuration with every "auto" resolved.
        model: the model as it trains, wrapped for many processes and mixed precision.
        raw_model: the `GPT` inside it.
        step: updates made so far, those skipped among them.
        spent: seconds in updates, in evaluations and in saving.
        health: updates skipped, and losses that stood out.
    """

    def __init__(self, config: TrainConfig, run: Run) -> None:
        self.config, self.accelerator, self.data, self.raw_model = start(config, run)
        accelerator, self.folder = self.accelerator, run
        rank, processes, self.is_main = (
            accelerator.process_index,
            accelerator.num_processes,
            accelerator.is_main_process,
        )
        self.feed = Feed(self.config, self.data, rank, processes, accelerator.device)
        self.raw_optimizer = make_optimizer(
            self.raw_model, self.config.optim, self.config.precision
        )
        if self.config.compile:
            self.raw_model.compile()  # in place: the parameters keep their names
        self.model, self.optimizer = accelerator.prepare(self.raw_model, self.raw_optimizer)
        self.state = TrainingState(
            self.raw_model, self.raw_optimizer, self.data, accelerator, self.config
        )
        saved = Progress() if run.checkpoint is None else self.state.load(run.checkpoint)
        self.step, self.spent, self.health = saved.step, saved.spent, Health(**saved.health)
        self.stop, self.is_new = StopRequest(), True
        if self.is_main:
            run.forget_after(self.step if run.checkpoint else -1)
            run.tidy(self.config)
        trackers = start_trackers(accelerator, run.folder, self.config, self.step)
        gauge = Gauge(self.config, accelerator.device.type, processes)
        self.journal = Journal(run, self.config.steps, self.step, self.is_main, trackers, gauge)

    def run(self) -> dict[str, Any]:
        """Train to the end, evaluate on all held-out text, and return the result."""
        config = self.config
        try:
            with self.stop:
                if self.step == 0:
                    self.evaluate()
                while self.step < config.steps:
                    asked_to_stop = self.update()
                    done = self.step == config.steps
                    due = self.step % config.eval_every == 0 and not done
                    scores = self.evaluate() if due else {}
                    if done and config.keep_best:  # judged as the others were, on as much text
                        scores = self.score()
                    if asked_to_stop or done or self.step % config.save_every == 0:
                        self.save(scores)
                    if asked_to_stop:
                        raise Interrupted(self.stop.signum, self.folder.folder, self.step)
                # Everything is saved: the last evaluation, of all held-out text, need not end.
                self.stop.leave(lambda n: Interrupted(n, self.folder.folder, self.step))
                return self.finish()
        finally:
            self.journal.close()

    def update(self) -> bool:
        """Make one update of the weights; return whether any process was asked to stop."""
        config, accelerator = self.config, self.accelerator
        started = time.perf_counter()
        lr = learning_rate(self.step, config.steps, config.optim)
        set_learning_rate(self.raw_optimizer, lr)
        micro_batches = self.feed.micro_batches(self.step)
        counts = sum(micro_batch.n_targets for micro_batch in micro_batches)
        (n_tokens,) = self.sum_over_processes(counts)
        total = self.backward(micro_batches, n_tokens)
        limit = config.optim.grad_clip or math.inf
        norm = whole(accelerator.clip_grad_norm_(self.raw_model.parameters(), limit)).item()
        summed_loss, stops = self.sum_over_processes(total, self.stop.signum != 0)
        loss_now = summed_loss / n_tokens
        self.step += 1
        scaler = accelerator.scaler
        sick = self.health.sickness(loss_now, norm, scaler.get_scale() if scaler else 1.0)
        # fp16's scaler finds an infinite gradient by itself; called then, it lowers its scale.
        if sick is None or (scaler and math.isfinite(loss_now)):
            self.optimizer.step()
        elif scaler:
            scaler.update()
        self.optimizer.zero_grad()
        if self.is_new:  # the moments were made among what the first passes freed
            give_back_freed_memory()
            self.is_new = False
        seconds = time.perf_counter() - started
        self.spent["update"] += seconds
        if sick is not None:
            self.skip(sick, micro_batches)
        else:
            spike = self.health.spike(loss_now, config.spike_threshold)
            mark = {"spike": True} if spike else {}
            speed, spent = n_tokens / seconds, self.spent["update"]
            self.journal.update(
                self.step, spent, speed, loss=loss_now, lr=lr, grad_norm=norm, **mark
            )
        return stops > 0

    def backward(self, micro_batches: list[MicroBatch], n_tokens: float) -> float:
        """Add up the gradients of the mean loss over `n_tokens`; return this process's summed loss.

        Sums and one common count: means of micro-batches with different counts of targets
        cannot be averaged.
        """
        accelerator = self.accelerator
        # DDP averages gradients over processes; times their number, the average is the sum.
        scale = accelerator.num_processes / n_tokens
        total = torch.zeros((), device=accelerator.device)
        self.model.train()
        for i, micro_batch in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                loss, _ = self.model(*micro_batch)
                accelerator.backward(loss * scale)
            total += loss.detach()
        return total.item()

    def skip(self, sick: str, micro_batches: list[MicroBatch]) -> None:
        """Write down an update that was not made; stop the run after too many in a row.

        Raises:
            UserError: after the batch is saved, to be looked at.
        """
        health, config = self.health, self.config
        self.journal.skipped(self.step, sick, health.in_a_row)
        if health.in_a_row > config.max_skipped:
            where = self.state.save_batch(self.folder.folder, self.step, micro_batches)
            raise UserError(
                f"{health.in_a_row} updates in a row had a loss or gradient that is not finite "
                f"(step {self.step}: {sick}; max_skipped {config.max_skipped}); the weights have "
                f"not changed since step {self.step - health.in_a_row}, and the last batch is in "
                f"{where}. Start again "
                f"from a checkpoint with --init_from and an optim.lr below {config.optim.lr:g}"
            )

    def save(self, scores: dict[str, Any]) -> None:
        """Write a checkpoint; `scores` are those of an evaluation at this very step, if any."""
        with self.timed("save"):
            held_out = scores.get("loss"), scores.get("tokens")
            progress = Progress(self.step, self.spent, self.health.to_dict(), *held_out)
            if self.is_main:
                self.folder.flush_logs()
            self.state.save(self.folder.folder, progress)

    def sum_over_processes(self, *values: float) -> list[float]:
        """Add up numbers over the processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        tensor = torch.tensor([float(v) for v in values], device=self.accelerator.device)
        return self.accelerator.reduce(tensor, "sum").tolist()  # type: ignore[no-any-return]

    def evaluate(self, full: bool = False) -> dict[str, Any]:
        """Score held-out text and draw a sample; write both and return them."""
        scores = self.score(full)
        if self.config.sample_tokens:
            with self.timed("evaluate"):
                model = self.state.whole_model()
                if model is not None:
                    scores["sample"] = self.sample(model)
        self.journal.evaluation(self.step, scores, complete=full)
        return scores

    def score(self, full: bool = False) -> dict[str, Any]:
        """Score held-out text, some or all of it; without any, return nothing."""
        config, held_out = self.config, self.data.val
        if held_out is None:
            return {}
        with self.timed("evaluate"):
            return score(
                self.model,
                held_out,
                config.model.block_size,
                batch_size=self.feed.size,
                limit=None if full else config.eval_batches * config.batch_size // self.feed.size,
                accelerator=self.accelerator,
                eot=self.feed.eot,
            )

    def sample(self, model: GPT) -> str:
        """Continue the configured prompt, with the same random numbers each time."""
        tokenizer, config = self.data.tokenizer, self.config
        idx = torch.tensor([tokenizer.encode(config.sample_prompt)], device=self.accelerator.device)
        out = generate(model, idx, config.sample_tokens, top_k=50, seed=config.seed)
        text: str = tokenizer.decode(out[0].tolist())
        return text

    def finish(self) -> dict[str, Any]:
        """Score all held-out text and write the result, which makes the run complete."""
        seen = self.config.steps * self.config.batch_size * self.config.model.block_size
        result = {
            **self.evaluate(full=True),
            "steps": self.config.steps,
            "parameters": self.raw_model.num_parameters(),
            "train_tokens": seen,
            "train_seconds": round(self.spent["update"], 1),
            "evaluate_seconds": round(self.spent["evaluate"], 1),
            "save_seconds": round(self.spent["save"], 1),
            "tokens_per_second": round(seen / self.spent["update"], 1),
            "skipped": self.health.skipped,
            "spikes": self.health.spikes,
            "precision": self.config.precision,
            "device": self.accelerator.device.type,
            "processes": self.accelerator.num_processes,
        }
        if self.is_main:
            if found := best(self.folder.folder):
                folder, loss = found
                step = int(folder.name.removeprefix("step-"))
                result["best"] = {"step": step, "val_loss": loss, "checkpoint": folder.name}
            self.folder.write_result(result)
        self.accelerator.wait_for_everyone()
        return result

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds that the block takes to `spent`."""
        started = time.perf_counter()
        yield
        self.spent[what] += time.perf_counter() - started
