"""Exercises of notebook 04."""

from gpt2lib.course.exercises.attention import (
    attention_weights,
    average_the_past,
    causal_mask,
    self_attention,
    split_heads,
)

EXERCISES = [
    average_the_past.EXERCISE,
    causal_mask.EXERCISE,
    attention_weights.EXERCISE,
    split_heads.EXERCISE,
    self_attention.EXERCISE,
]
