"""Which updates are not made, and which losses stand out."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from tiny import STEPS, config, log, stop_after, tensors

from gpt2lib.config import TrainConfig
from gpt2lib.data import loader
from gpt2lib.model.gpt import GPT
from gpt2lib.runs.checkpoint import checkpoints, read_tensors
from gpt2lib.training.guard import MEMORY, TRUSTED_AFTER, Guard, Interrupted
from gpt2lib.training.loop import Trainer, train
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


@pytest.mark.parametrize("loss", [2.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", [1.0, math.nan, math.inf])
def test_only_finite_updates_are_made(loss, norm):
    guard = Guard()
    why = guard.non_finite(loss, norm)
    well = math.isfinite(loss) and math.isfinite(norm)
    assert (why is None) == well
    assert guard.skipped == guard.in_a_row == (not well)
    if why:
        assert ("loss" in why) == (not math.isfinite(loss))
        assert ("gradient" in why) == (not math.isfinite(norm))


def test_in_a_row_ends_with_an_update_that_is_made():
    guard = Guard()
    for loss in (math.nan, math.nan, 1.0, math.nan):
        guard.non_finite(loss, 1.0)
    assert (guard.skipped, guard.in_a_row) == (3, 1)


class Scaler:
    """What fp16 multiplies the loss with."""

    def __init__(self, scale: float) -> None:
        self.scale, self.updates = scale, 0

    def get_scale(self) -> float:
        return self.scale

    def update(self) -> None:
        self.updates += 1


def test_an_overflow_of_the_loss_scale_is_not_the_run_s_fault():
    guard, high, lowest = Guard(), Scaler(1024.0), Scaler(1.0)
    assert guard.non_finite(2.0, math.inf, high)
    assert (guard.skipped, guard.in_a_row) == (1, 0)
    assert guard.non_finite(2.0, math.inf, lowest)  # the scale has nothing left to give
    assert (guard.skipped, guard.in_a_row) == (2, 1)
    assert guard.non_finite(math.nan, 1.0, high)
    assert guard.in_a_row == 2
    assert not guard.non_finite(2.0, 1.0, high)
    assert (high.updates, lowest.updates) == (2, 1)  # of an update that is made, it hears itself


def noisy(n, mean=3.0, spread=0.1, seed=0):
    draw = random.Random(seed)
    return [draw.gauss(mean, spread) for _ in range(n)]


def test_the_running_mean_and_spread_are_those_of_the_losses():
    guard, losses = Guard(), noisy(40)
    for loss in losses:
        assert not guard.spike(loss, 50.0)
    assert guard.mean == pytest.approx(statistics.fmean(losses))
    assert guard.variance == pytest.approx(statistics.pvariance(losses))


def test_a_loss_that_stands_out_is_a_spike_and_noise_is_not():
    guard = Guard()
    assert not any(guard.spike(loss, 6.0) for loss in noisy(2000))
    assert not guard.spike(3.0 + 5 * 0.1, 6.0)
    assert guard.spike(3.0 + 9 * 0.1, 6.0)
    assert guard.spikes == 1


def test_a_low_loss_is_no_spike():
    guard = Guard()
    for loss in noisy(200):
        guard.spike(loss, 6.0)
    assert not guard.spike(0.1, 6.0)


def test_before_there_is_a_spread_to_compare_with_only_twice_the_mean_is_a_spike():
    guard = Guard()
    assert not guard.spike(100.0, 6.0)  # the very first
    guard = Guard()
    for loss in noisy(TRUSTED_AFTER - 2):
        guard.spike(loss, 6.0)
    assert not guard.spike(5.5, 6.0)
    assert guard.spike(100.0, 6.0)


def test_a_new_level_is_no_spike_for_ever():
    guard = Guard()
    for loss in noisy(200):
        guard.spike(loss, 6.0)
    later = [guard.spike(loss, 6.0) for loss in noisy(int(5 / (1 - MEMORY)), mean=6.0)]
    assert later[0] and not any(later[-100:])


def test_it_goes_through_a_checkpoint():
    guard = Guard()
    for loss in noisy(80):
        guard.spike(loss, 6.0)
    guard.non_finite(math.nan, 1.0)
    assert Guard(**asdict(guard)) == guard


# ── in a run ────────────────────────────────────────────────────────────────────────────────────


def poisoned(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the loss of some updates, counted from 0, infinite."""
    original = loader.Loader.micro_batches
    forward = GPT.forward
    now = [0]

    def micro_batches(self: loader.Loader, step: int) -> list[loader.MicroBatch]:
        now[0] = step
        return original(self, step)

    def poisonous(self: GPT, *inputs: Any) -> Any:
        out = forward(self, *inputs)
        if self.training and now[0] in steps and isinstance(out, tuple):
            return out[0] * torch.inf, out[1]
        return out

    monkeypatch.setattr(loader.Loader, "micro_batches", micro_batches)
    monkeypatch.setattr(GPT, "forward", poisonous)


def test_a_non_finite_update_is_skipped_and_counted(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and moments are those of a run in which the update never was."""
    poisoned(monkeypatch, 3)
    quiet = config(text, sample_tokens=0, save_every=1, keep=9)
    result = train(quiet, tmp_path / "run")
    assert (result["skipped"], result["steps"]) == (1, STEPS)
    before, after = tensors(tmp_path / "run", 3), tensors(tmp_path / "run", 4)
    assert all(torch.equal(before[n], after[n]) for n in before if not n.startswith("random"))
    assert all(t.isfinite().all() for t in tensors(tmp_path / "run").values())
    lines = log(tmp_path / "run")
    assert [m["step"] for m in lines if "loss" in m] == [1, 2, 3, 5, 6, 7, 8]
    (skipped,) = (m for m in lines if "skipped" in m)
    assert skipped == {"step": 4, "skipped": "loss inf, gradient nan", "in_a_row": 1}


def test_many_in_a_row_stop_the_run_and_keep_the_batch(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    poisoned(monkeypatch, 2, 3, 4)
    quiet = config(text, sample_tokens=0, save_every=1, max_skipped=2)
    with pytest.raises(UserError, match=r"3 updates in a row .* not changed since step 2"):
        train(quiet, tmp_path / "run")
    (kept,) = (tmp_path / "run" / "non_finite").iterdir()
    assert kept.name == "step-00000005-0.safetensors"
    saved = read_tensors(kept)
    again = opened(quiet, tmp_path / "again").loader
    pieces = [part[:2] for part in again.micro_batches(4)]
    expected = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
    assert torch.equal(saved["idx"], expected[0]) and torch.equal(saved["targets"], expected[1])


def test_updates_skipped_in_a_row_are_counted_across_a_resume(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, 2, 3, 4)
    quiet = config(text, sample_tokens=0, save_every=1, max_skipped=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            train(quiet, tmp_path / "run")
    with pytest.raises(UserError, match=r"3 updates in a row"):
        train(quiet, tmp_path / "run")


def test_a_nan_in_the_weights_stops_the_run(text: Path, tmp_path: Path, opened: Opened) -> None:
    quiet = config(text, sample_tokens=0, max_skipped=1)
    run = opened(quiet, tmp_path / "run")
    with torch.no_grad():
        run.raw_model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.nan
    before = run.raw_model.lm_head.weight.clone()
    with pytest.raises(UserError, match=r"2 updates in a row"):
        run.run()
    assert torch.equal(run.raw_model.lm_head.weight, before)
    assert not checkpoints(tmp_path / "run")


def test_fp16_lowers_its_scale_until_the_gradient_is_finite(
    text: Path, tmp_path: Path, opened: Opened
) -> None:
    """PyTorch's own scaler on a CPU, where Accelerate leaves it out."""
    run = opened(config(text, sample_tokens=0, max_skipped=0), tmp_path / "run")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-20)
    run.accelerator.scaler = scaler
    run.optimizer = AcceleratedOptimizer(run.raw_optimizer, scaler=scaler)
    run.accelerator.native_amp = True
    run.accelerator.state._mixed_precision = "fp16"
    before = {n: p.clone() for n, p in run.raw_model.named_parameters()}
    made = 0
    while not made:
        run.update()
        made = run.step - run.guard.skipped
        changed = [n for n, p in run.raw_model.named_parameters() if not torch.equal(p, before[n])]
        assert bool(changed) == bool(made)
    assert run.guard.skipped >= 1 and run.guard.in_a_row == 0
    assert scaler.get_scale() == 2.0 ** (127 - 20 * run.guard.skipped)
    skipped, *_, last = log(tmp_path / "run")
    assert skipped["skipped"].startswith("gradient") and skipped["in_a_row"] == 0
    assert last["step"] == run.step and math.isfinite(last["grad_norm"])


@pytest.mark.parametrize(("training", "said"), [(2.0, "overfitting: "), (4.0, "")])
def test_overfitting_is_said_where_the_training_loss_falls_on(
    training: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(seen=1000, mean=3.0)
    guard.held_out(10, 3.1)
    guard.mean = training
    guard.held_out(20, 3.2)
    assert not caplog.messages
    guard.held_out(30, 3.15)
    guard.held_out(40, 3.3)
    (message,) = caplog.messages
    assert message.startswith(f"{said}the held-out loss was lowest at step 10 (3.1000)")
    assert ("fell to 2.0000" in message) == bool(said)
    guard.held_out(50, 3.0)
    assert (guard.lowest_at, guard.worse) == (50, 0)
