"""Notebook 06: How many parameters a GPT-2 has."""

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

config: Any = lazy("gpt2lib.config")


def _library_count(count_parameters: Any) -> Any:
    def count(V: int, T: int, L: int, d: int) -> Any:
        shape = config.GPTConfig(vocab_size=V, block_size=T, n_layer=L, n_head=1, n_embd=d)
        return count_parameters(shape)

    return count


def _right_count(V: int, T: int, L: int, d: int) -> int:
    return V * d + T * d + L * (12 * d * d + 13 * d) + 2 * d


EXERCISE = Exercise(
    id="count-parameters",
    notebook="06",
    title="How many parameters a GPT-2 has",
    signature="my_count_parameters(V, T, L, d)",
    reference="gpt2lib.estimate:count_parameters",
    adapt=_library_count,
    shows="gpt2lib.estimate:parameter_parts",
    cases=lambda: [case(50257, 1024, 12, 768), case(7, 5, 3, 2), case(65, 256, 6, 384)],
    hints=[
        "Two embeddings, L blocks, one last layer norm. The head costs nothing: it is tied.",
        "A linear layer from a to b channels has a·b weights and b biases; a layer norm of d "
        "channels has 2·d. A block has four linear layers and two norms.",
        "c_attn 3d² + 3d, c_proj d² + d, c_fc 4d² + 4d, c_proj 4d² + d, two norms 4d: "
        "12d² + 13d a block.",
    ],
    misconceptions=[
        Misconception(
            "untied-head",
            "you are V·d above: you counted the head as well, which is the token embedding itself",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) + V * d,
        ),
        Misconception(
            "no-biases",
            "the biases of the linear layers are missing, 9·d in each block",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - 9 * L * d,
        ),
        Misconception(
            "no-norms-in-the-blocks",
            "the two layer norms of each block are missing, 4·d a block",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - 4 * L * d,
        ),
        Misconception(
            "no-norms",
            "the layer norms are missing, 4·d in each block and 2·d after the last",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - (4 * L + 2) * d,
        ),
        Misconception(
            "weights-only",
            "biases and layer norms are missing: 13·d in each block and 2·d after the last",
            wrong=lambda V, T, L, d: V * d + T * d + 12 * L * d * d,
        ),
        Misconception(
            "forgot-the-last-norm",
            "you are 2·d below: after the last block there is one more layer norm, ln_f",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - 2 * d,
        ),
        Misconception(
            "forgot-the-positions",
            "you are T·d below: positions are learned, one vector of d for each place",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - T * d,
        ),
        Misconception(
            "norms-without-bias",
            "each layer norm has a gain and a bias, 2·d together; you counted d",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - (2 * L + 1) * d,
        ),
        Misconception(
            "attention-without-c-proj",
            "attention has a second matrix, c_proj, of d² + d",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - L * (d * d + d),
        ),
    ],
)
