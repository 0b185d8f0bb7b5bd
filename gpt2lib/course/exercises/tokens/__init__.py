"""Exercises of notebook 01."""

from gpt2lib.course.exercises.tokens import (
    count_pairs,
    encode_word,
    merge_pair,
    tokens_to_text,
)

EXERCISES = [
    count_pairs.EXERCISE,
    merge_pair.EXERCISE,
    encode_word.EXERCISE,
    tokens_to_text.EXERCISE,
]
