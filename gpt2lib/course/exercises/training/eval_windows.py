"""Notebook 16: Windows that score every token once."""

from gpt2lib.course.exercise import Exercise, Misconception, case

EXERCISE = Exercise(
    id="eval-windows",
    notebook="16",
    title="Windows that score every token once",
    signature="my_window_starts(n_tokens, block_size)",
    reference="gpt2lib.data.order:eval_starts",
    adapt=lambda library: lambda n_tokens, block_size: library(n_tokens, block_size).tolist(),
    cases=lambda: [case(10, 4), case(9, 4), case(3, 8), case(13, 4), case(100, 7)],
    hints=[
        "A window that starts at s reads tokens s … s + T - 1 and predicts s + 1 … s + T.",
        "The next window predicts s + T + 1 first, so it starts at s + T.",
        "A start needs a token after it: the last possible one is n_tokens - 2.",
    ],
    misconceptions=[
        Misconception(
            "drops-the-rest",
            "the last, shorter window is missing: the end of the text is never scored, and the "
            "bytes in the denominator are too many",
            wrong=lambda n, t: list(range(0, n - t, t)),
        ),
        Misconception(
            "nothing-to-predict",
            "with 9 tokens and blocks of 4, a window at 8 has an input but no token after it",
            wrong=lambda n, t: list(range(0, n, t)),
        ),
        Misconception(
            "overlapping",
            "your windows overlap by one, so some tokens are scored twice: a window reads "
            "block_size + 1 tokens, but the last of them is only a target",
            wrong=lambda n, t: list(range(0, n - 1, t - 1)),
        ),
        Misconception(
            "skips-a-token",
            "between two windows one token is never scored: the target that ends one window is "
            "the first input of the next",
            wrong=lambda n, t: list(range(0, n - 1, t + 1)),
        ),
        Misconception(
            "last-moved-back",
            "the last window is moved back so that it is full: the tokens at its beginning are "
            "scored twice. It starts behind the one before it, and is shorter",
            wrong=lambda n, t: [min(s, max(0, n - 1 - t)) for s in range(0, n - 1, t)],
        ),
        Misconception(
            "starts-at-one",
            "token 0 is never an input: the first window starts at 0",
            wrong=lambda n, t: list(range(1, n - 1, t)),
        ),
    ],
)
