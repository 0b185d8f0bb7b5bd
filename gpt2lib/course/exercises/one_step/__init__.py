"""Exercises of notebook 08."""

from gpt2lib.course.exercises.one_step import (
    accumulated_gradient,
    adamw_step,
    clip_by_norm,
    decay_groups,
    newton_schulz,
    orthogonal_step,
    weight_left,
)

EXERCISES = [
    clip_by_norm.EXERCISE,
    adamw_step.EXERCISE,
    weight_left.EXERCISE,
    decay_groups.EXERCISE,
    accumulated_gradient.EXERCISE,
    orthogonal_step.EXERCISE,
    newton_schulz.EXERCISE,
]
