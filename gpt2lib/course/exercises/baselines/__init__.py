"""Exercises of notebook 03."""

from gpt2lib.course.exercises.baselines import (
    bigram_probabilities,
    cross_entropy,
    entropy,
    table_loss,
)

EXERCISES = [
    cross_entropy.EXERCISE,
    entropy.EXERCISE,
    bigram_probabilities.EXERCISE,
    table_loss.EXERCISE,
]
