"""Exercises of notebook 05."""

from gpt2lib.course.exercises.positions import (
    interpolated_rope,
    ntk_base,
    rope,
    rope_frequencies,
    turn_a_pair,
)

EXERCISES = [
    turn_a_pair.EXERCISE,
    rope_frequencies.EXERCISE,
    rope.EXERCISE,
    interpolated_rope.EXERCISE,
    ntk_base.EXERCISE,
]
