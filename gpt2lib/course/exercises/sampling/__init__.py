"""Exercises of notebook 11."""

from gpt2lib.course.exercises.sampling import (
    cache_bytes,
    cached_step,
    int8_rows,
    repetition_penalty,
    temperature_probabilities,
    top_k,
    top_p,
)

EXERCISES = [
    temperature_probabilities.EXERCISE,
    top_k.EXERCISE,
    top_p.EXERCISE,
    repetition_penalty.EXERCISE,
    cached_step.EXERCISE,
    cache_bytes.EXERCISE,
    int8_rows.EXERCISE,
]
