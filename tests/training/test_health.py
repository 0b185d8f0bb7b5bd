"""What counts as sick, and which losses stand out."""

import math
import random
import statistics

import pytest

from gpt2lib.training.guard import MEMORY, TRUSTED_AFTER, Health


@pytest.mark.parametrize("loss", [2.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", [1.0, math.nan, math.inf])
def test_only_finite_updates_are_made(loss, norm):
    health = Health()
    why = health.sickness(loss, norm)
    well = math.isfinite(loss) and math.isfinite(norm)
    assert (why is None) == well
    assert health.skipped == health.in_a_row == (not well)
    if why:
        assert ("loss" in why) == (not math.isfinite(loss))
        assert ("gradient" in why) == (not math.isfinite(norm))


def test_in_a_row_ends_with_an_update_that_is_made():
    health = Health()
    for loss in (math.nan, math.nan, 1.0, math.nan):
        health.sickness(loss, 1.0)
    assert (health.skipped, health.in_a_row) == (3, 1)


def test_an_overflow_of_the_loss_scale_is_no_sickness_of_the_run():
    health = Health()
    assert health.sickness(2.0, math.inf, scale=1024.0)
    assert (health.skipped, health.in_a_row) == (1, 0)
    assert health.sickness(2.0, math.inf, scale=1.0)  # the scale has nothing left to give
    assert (health.skipped, health.in_a_row) == (2, 1)
    assert health.sickness(math.nan, 1.0, scale=1024.0)
    assert health.in_a_row == 2


def noisy(n, mean=3.0, spread=0.1, seed=0):
    draw = random.Random(seed)
    return [draw.gauss(mean, spread) for _ in range(n)]


def test_the_running_mean_and_spread_are_those_of_the_losses():
    health, losses = Health(), noisy(40)
    for loss in losses:
        assert not health.spike(loss, 50.0)
    assert health.mean == pytest.approx(statistics.fmean(losses))
    assert health.variance == pytest.approx(statistics.pvariance(losses))


def test_a_loss_that_stands_out_is_a_spike_and_noise_is_not():
    health = Health()
    assert not any(health.spike(loss, 6.0) for loss in noisy(2000))
    assert not health.spike(3.0 + 5 * 0.1, 6.0)
    assert health.spike(3.0 + 9 * 0.1, 6.0)
    assert health.spikes == 1


def test_a_low_loss_is_no_spike():
    health = Health()
    for loss in noisy(200):
        health.spike(loss, 6.0)
    assert not health.spike(0.1, 6.0)


def test_nothing_is_a_spike_before_there_is_something_to_compare_with():
    health = Health()
    for loss in noisy(TRUSTED_AFTER - 1):
        health.spike(loss, 6.0)
    assert not health.spike(100.0, 6.0)


def test_a_new_level_is_no_spike_for_ever():
    health = Health()
    for loss in noisy(200):
        health.spike(loss, 6.0)
    later = [health.spike(loss, 6.0) for loss in noisy(int(5 / (1 - MEMORY)), mean=6.0)]
    assert later[0] and not any(later[-100:])


def test_it_goes_through_a_checkpoint():
    health = Health()
    for loss in noisy(80):
        health.spike(loss, 6.0)
    health.sickness(math.nan, 1.0)
    assert Health(**health.to_dict()) == health
