"""Notebook 07: The std of what writes into the stream."""

import math

from gpt2lib.course.exercise import Exercise, Misconception, case

EXERCISE = Exercise(
    id="residual-init-std",
    notebook="07",
    title="The std of what writes into the stream",
    signature="my_residual_std(n_layer)",
    reference="gpt2lib.model.init:residual_std",
    cases=lambda: [case(3), case(12), case(48)],
    hints=[
        "How many times does one block add to the stream?",
        "N independent terms of std s add up to std √N · s. "
        "You want that sum to be as large as one term of std 0.02.",
        "0.02 divided by the square root of 2 · n_layer",
    ],
    misconceptions=[
        Misconception(
            "one-write-a-block",
            "you counted one addition a block; there are two, one by attention and one by the MLP",
            wrong=lambda n_layer: 0.02 / math.sqrt(n_layer),
        ),
        Misconception(
            "no-root",
            "you divided by the number of additions; it is variances that add up, so the std of "
            "the sum grows with the root of that number: divide by the root",
            wrong=lambda n_layer: 0.02 / (2 * n_layer),
        ),
        Misconception(
            "wrong-direction",
            "you multiplied by the root; the sum grows by it, so each term must shrink by it",
            wrong=lambda n_layer: 0.02 * math.sqrt(2 * n_layer),
        ),
        Misconception(
            "factor-only",
            "this is the factor alone; multiply it by GPT-2's std of 0.02",
            wrong=lambda n_layer: 1 / math.sqrt(2 * n_layer),
        ),
        Misconception(
            "variance",
            "this is the variance; the std is its square root",
            wrong=lambda n_layer: 0.02**2 / (2 * n_layer),
        ),
        Misconception(
            "forgets-the-depth",
            "this does not depend on n_layer: a deeper model adds more often, so each addition "
            "has to be smaller",
            test=lambda f: f(3) == f(48),
        ),
    ],
)
