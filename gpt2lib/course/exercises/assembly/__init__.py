"""Exercises of notebook 06."""

from gpt2lib.course.exercises.assembly import (
    block,
    count_parameters,
    layer_norm,
    mlp,
)

EXERCISES = [
    layer_norm.EXERCISE,
    mlp.EXERCISE,
    block.EXERCISE,
    count_parameters.EXERCISE,
]
