"""Exercises of notebook 13."""

from gpt2lib.course.exercises.long_context import (
    global_mask,
    pool_heads,
    receptive_field,
    shared_heads,
    window_blocks,
    window_mask,
)

EXERCISES = [
    shared_heads.EXERCISE,
    pool_heads.EXERCISE,
    window_mask.EXERCISE,
    global_mask.EXERCISE,
    receptive_field.EXERCISE,
    window_blocks.EXERCISE,
]
