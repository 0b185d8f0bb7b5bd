"""The ladder of factors: every rung is the same training, and what differs is measured."""

import sys

import pytest

from gpt2lib.course import factors
from gpt2lib.course.factors import RUNGS, make_update, measure, resident_peak
from gpt2lib.model.kernels import chunked_loss
from gpt2lib.training.live_bytes import LiveBytes

TINY = {"vocab_size": 600, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32}


def losses(level):
    update = make_update(level, TINY, 4)  # makes the first update
    return [update() for _ in range(3)]


def test_every_rung_is_the_same_training():
    plain = losses(0)
    assert plain[2] < plain[1] < plain[0]
    assert losses(0) == plain
    for level in range(1, len(RUNGS)):
        assert losses(level) == pytest.approx(plain, rel=2e-3), RUNGS[level]


def peak(name):
    update = make_update(RUNGS.index(name), TINY, 4)
    with LiveBytes(update.state) as live:
        update()
    return live.peak


def test_the_rungs_differ_in_what_lives(monkeypatch):
    monkeypatch.setattr(chunked_loss, "IN_CACHE", 4 * 600)
    assert peak("plain: float32") > peak("+ bf16 autocast")
    saved = peak("+ kept memory") - peak("+ loss in chunks")
    logits = 4 * 32 * 600
    # Of two tables in float32 and the lookup's own gradient, but for gradients made ahead.
    assert 4 * logits < saved < 8 * logits + 4 * 600 * 32


def test_rungs_are_measured_in_processes_of_their_own():
    names = RUNGS[0], RUNGS[3]
    plain, chunked = measure(TINY, 4, updates=1, rungs=names)
    assert (plain.name, chunked.name) == names
    assert plain.seconds > 0 and chunked.seconds > 0
    assert plain.live > chunked.live > 16 * 600 * 32
    assert "torch" not in vars(factors)
    if sys.platform == "linux":
        assert plain.resident > 0 and resident_peak() > 10**7


def test_a_process_that_dies_is_told():
    with pytest.raises(RuntimeError, match="a rung's process ended"):
        measure({**TINY, "n_head": 3}, 4, rungs=RUNGS[:1])
