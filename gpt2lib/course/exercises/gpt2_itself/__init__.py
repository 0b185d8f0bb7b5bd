"""Exercises of notebook 12."""

from gpt2lib.course.exercises.gpt2_itself import (
    contributions,
    kink,
    logit_lens,
    prefix_mask,
    recovered,
    without_head,
)

EXERCISES = [
    logit_lens.EXERCISE,
    contributions.EXERCISE,
    without_head.EXERCISE,
    recovered.EXERCISE,
    prefix_mask.EXERCISE,
    kink.EXERCISE,
]
