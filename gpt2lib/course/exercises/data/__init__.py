"""Exercises of notebook 02."""

from gpt2lib.course.exercises.data import (
    cycle_walking,
    document_ids,
    feistel,
    inputs_and_targets,
    mixture_draw,
    samples_of_a_process,
)

EXERCISES = [
    inputs_and_targets.EXERCISE,
    feistel.EXERCISE,
    cycle_walking.EXERCISE,
    samples_of_a_process.EXERCISE,
    document_ids.EXERCISE,
    mixture_draw.EXERCISE,
]
