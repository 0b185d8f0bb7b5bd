"""The training loop, on Accelerate.

One update: take the next `batch_size` windows of the text, in pieces of `micro_batch`; add up
their gradients; clip; step. The order of the data is a function of (seed, sample index) and the
learning rate a function of the step, so the whole position of a run is one integer. A
checkpoint adds weights, optimiser state and random state, and a resumed run goes on bitwise as
if it had never stopped.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from gpt2lib.config import TrainConfig
from gpt2lib.data import IGNORE, batch, sample_windows
from gpt2lib.errors import UserError
from gpt2lib.evaluate import score
from gpt2lib.optim import learning_rate, make_optimizer, set_learning_rate
from gpt2lib.runs import Run, open_run
from gpt2lib.sampling import generate
from gpt2lib.signals import Interrupted, StopRequest
from gpt2lib.start import start
from gpt2lib.training_state import TrainingState


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
    if run.result is not None:
        return {**run.result, "already_complete": True}
    with run.lock():
        return {**Trainer(config, run).run(), "already_complete": False}


class Trainer:
    """A run in progress.

    Attributes:
        config: the run's configuration with every "auto" resolved.
        model: the model as it trains, wrapped for many processes and mixed precision.
        raw_model: the `GPT` inside it.
        step: updates made so far.
        seconds: time spent in them.
    """

    def __init__(self, config: TrainConfig, run: Run) -> None:
        self.config, self.accelerator, self.data, self.raw_model = start(config, run)
        self.folder, self.is_main = run, self.accelerator.is_main_process
        self.raw_optimizer = make_optimizer(self.raw_model, self.config.optim)
        if self.config.compile:
            self.raw_model.compile()  # in place: the parameters keep their names
        self.model, self.optimizer = self.accelerator.prepare(self.raw_model, self.raw_optimizer)
        self.state = TrainingState(
            self.raw_model, self.raw_optimizer, self.data, self.accelerator, self.config
        )
        self.step, self.seconds, self.stop = 0, 0.0, StopRequest()
        if run.checkpoint is not None:
            self.step, self.seconds = self.state.load(run.checkpoint)
        if self.is_main:
            run.forget_after(self.step if run.checkpoint else -1)

    def run(self) -> dict[str, Any]:
        """Train to the end, evaluate on all held-out text, and return the result."""
        config = self.config
        bar = tqdm(total=config.steps, initial=self.step, unit="step", disable=not self.is_main)
        with bar, self.stop:
            if self.step == 0:
                self.evaluate(bar)
            while self.step < config.steps:
                asked_to_stop = self.update(bar)
                if self.step % config.eval_every == 0 and self.step < config.steps:
                    self.evaluate(bar)
                done = self.step == config.steps
                if asked_to_stop or done or self.step % config.save_every == 0:
                    self.state.save(self.folder.folder, self.step, self.seconds)
                if asked_to_stop and not done:
                    raise Interrupted(self.stop.signum, self.folder.folder, self.step)
        return self.finish()

    def update(self, bar: tqdm[Any]) -> bool:
        """Make one update of the weights; return whether any process was asked to stop."""
        config, accelerator = self.config, self.accelerator
        started = time.perf_counter()
        lr = learning_rate(self.step, config.steps, config.optim)
        set_learning_rate(self.raw_optimizer, lr)
        micro_batches = self.micro_batches()
        counts = sum(int((targets != IGNORE).sum()) for _, targets in micro_batches)
        (n_tokens,) = self.sum_over_processes(counts)
        # DDP averages gradients over processes; times their number, the average is the sum.
        scale = accelerator.num_processes / n_tokens
        total = torch.zeros((), device=accelerator.device)
        self.model.train()
        for i, (idx, targets) in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                loss, _ = self.model(idx, targets)
                accelerator.backward(loss * scale)
            total += loss.detach()
        limit = config.optim.grad_clip or math.inf
        norm = float(accelerator.clip_grad_norm_(self.raw_model.parameters(), limit))
        summed_loss, stops = self.sum_over_processes(total.item(), self.stop.signum != 0)
        loss_now = summed_loss / n_tokens
        # fp16's loss scaler looks for an infinite gradient by itself, and skips that update.
        if not math.isfinite(loss_now if accelerator.scaler else norm):
            raise UserError(
                f"update {self.step} has loss {loss_now:g} and a gradient of norm {norm}; the "
                f"weights were not touched. Lower optim.lr ({lr:g} now)"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self.report(bar, n_tokens / seconds, loss=loss_now, lr=lr, grad_norm=norm)
        return stops > 0

    def micro_batches(self) -> list[tuple[Tensor, Tensor]]:
        """Read this process's share of the next `batch_size` samples, in order, in pieces."""
        config, rank = self.config, self.accelerator.process_index
        share = config.batch_size // self.accelerator.num_processes
        first = self.step * config.batch_size + rank * share
        tokens, block_size = self.data.train, config.model.block_size
        indices = range(first, first + share)
        starts = sample_windows(len(tokens), block_size, config.seed, indices)  # (share,)
        size, device = config.micro_batch or share, self.accelerator.device
        pieces = (batch(tokens, starts[i : i + size], block_size) for i in range(0, share, size))
        return [(idx.to(device), targets.to(device)) for idx, targets in pieces]

    def sum_over_processes(self, *values: float) -> list[float]:
        """Add up numbers over the processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        tensor = torch.tensor([float(v) for v in values], device=self.accelerator.device)
        return self.accelerator.reduce(tensor, "sum").tolist()  # type: ignore[no-any-return]

    def report(self, bar: tqdm[Any], speed: float, **values: float) -> None:
        """Write the line of an update, and move the progress bar."""
        bar.set_postfix(loss=f"{values['loss']:.3f}", tok_s=f"{speed:,.0f}", refresh=False)
        bar.update()
        if self.is_main:
            spent = {"tokens_per_second": round(speed, 1), "seconds": round(self.seconds, 3)}
            self.folder.log("metrics.jsonl", step=self.step, **values, **spent)

    def evaluate(self, bar: tqdm[Any] | None = None, full: bool = False) -> dict[str, Any]:
        """Score held-out text, some or all of it, and draw a sample; write both and return them."""
        config, accelerator, held_out = self.config, self.accelerator, self.data.val
        scores: dict[str, Any] = {}
        if held_out is not None:
            scores |= score(
                self.model,
                held_out,
                config.model.block_size,
                batch_size=config.micro_batch or config.batch_size // accelerator.num_processes,
                limit=None if full else config.eval_batches,
                accelerator=accelerator,
            )
        if self.is_main and scores:
            loss, bits = scores["loss"], scores["bits_per_byte"]
            self.folder.log("metrics.jsonl", step=self.step, val_loss=loss, val_bits_per_byte=bits)
            if bar is not None:
                said = f"step {self.step}: held out {loss:.3f}, {bits:.3f} bits per byte"
                bar.write(said, file=sys.stderr)
        if self.is_main and config.sample_tokens:
            scores["sample"] = self.sample()
            self.folder.log("samples.jsonl", step=self.step, text=scores["sample"])
        return scores

    def sample(self) -> str:
        """Continue the configured prompt, with the same random numbers each time."""
        tokenizer, config = self.data.tokenizer, self.config
        idx = torch.tensor([tokenizer.encode(config.sample_prompt)], device=self.accelerator.device)
        out = generate(self.raw_model, idx, config.sample_tokens, top_k=50, seed=config.seed)
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
            "train_seconds": round(self.seconds, 1),
            "tokens_per_second": round(seen / self.seconds, 1),
            "precision": self.config.precision,
            "device": self.accelerator.device.type,
            "processes": self.accelerator.num_processes,
        }
        if self.is_main:
            self.folder.write_result(result)
        self.accelerator.wait_for_everyone()
        return result
