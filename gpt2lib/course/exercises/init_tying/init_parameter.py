"""Notebook 07: GPT-2's table of initial values."""

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
init: Any = lazy("torch.nn.init")


def _parameter_cases() -> Any:
    names = {
        "transformer.wte.weight": (7, 4),
        "transformer.wpe.weight": (5, 4),
        "transformer.h.0.ln_1.weight": (4,),
        "transformer.h.0.ln_1.bias": (4,),
        "transformer.h.0.attn.c_attn.weight": (12, 4),
        "transformer.h.0.attn.c_proj.weight": (4, 4),
        "transformer.h.1.mlp.c_fc.weight": (16, 4),
        "transformer.h.2.mlp.c_proj.weight": (4, 16),
        "transformer.h.2.mlp.c_proj.bias": (4,),
        "transformer.ln_f.weight": (4,),
    }
    return [case(torch.full(shape, 7.0), name, 3) for name, shape in names.items()]


def _variant(
    residual: Any = lambda name: name.endswith("c_proj.weight"),
    zero: Any = lambda name: name.endswith("bias"),
    gain: Any = lambda weight: init.ones_(weight),
    std: float = 0.02,
    n_terms: Any = lambda n_layer: 2 * n_layer,
) -> Any:
    """Return a way to initialise with one rule changed."""

    def fill(weight: Any, name: str, n_layer: int) -> None:
        if zero(name):
            init.zeros_(weight)
        elif weight.dim() == 1 and not name.endswith("bias"):
            gain(weight)
        else:
            shrink = math.sqrt(n_terms(n_layer)) if residual(name) else 1
            init.normal_(weight, std=std / shrink)

    return fill


def _vectors_at_1(weight: Any, name: str, n_layer: int) -> None:
    """Fill all vectors of the layer norms with 1, their biases too."""
    if ".ln_" in name:
        init.ones_(weight)
    else:
        _variant()(weight, name, n_layer)


def _needs_no_grad(my_init_parameter: Any) -> str | None:
    weight = torch.nn.Parameter(torch.full((4, 4), 7.0))
    try:
        my_init_parameter(weight, "transformer.h.0.mlp.c_fc.weight", 3)
    except RuntimeError as error:
        if "in-place" not in str(error) and "requires grad" not in str(error):
            return None
        return (
            "right for a plain tensor, but a model's Parameter requires a gradient, and autograd "
            "refuses to change it in place; write it under torch.no_grad(), or with "
            "nn.init.…_(weight), which does that"
        )
    return None


def _leaves_it(my_init_parameter: Any) -> bool:
    weight = torch.full((4, 4), 7.0)
    my_init_parameter(weight, "transformer.h.0.mlp.c_fc.weight", 3)
    return bool((weight == 7).all())


EXERCISE = Exercise(
    id="init-parameter",
    notebook="07",
    title="GPT-2's table of initial values",
    signature="my_init_parameter(weight, name, n_layer)",
    reference="gpt2lib.model.init:init_parameter",
    inplace=True,
    cases=_parameter_cases,
    hints=[
        "Four kinds: biases, gains of layer norms, c_proj matrices, all other matrices. "
        "The name tells the first and the third, weight.dim() the second.",
        'Ask for the bias first: "c_proj.bias" is a bias before it is a c_proj.',
        "nn.init.zeros_(weight), nn.init.ones_(weight), nn.init.normal_(weight, std=…) change "
        "the tensor itself.",
    ],
    misconceptions=[
        Misconception(
            "not-in-place",
            "the tensor still holds what it held before: change it in place, with "
            "nn.init.…_(weight), instead of making a new one",
            test=_leaves_it,
        ),
        Misconception(
            "no-residual-scaling",
            "c_proj has the std of every other matrix; it writes into the stream, so divide by "
            "√(2 · n_layer)",
            wrong=_variant(residual=lambda name: False),
        ),
        Misconception(
            "attention-only",
            "the MLP's c_proj is not scaled; it writes into the stream just as attention's does",
            wrong=_variant(residual=lambda name: name.endswith("attn.c_proj.weight")),
        ),
        Misconception(
            "c-fc-is-scaled",
            "c_fc is scaled as well; it does not write into the stream, only c_proj does, so c_fc "
            "has the std of every other matrix",
            wrong=_variant(residual=lambda name: "c_proj" in name or ".mlp." in name),
        ),
        Misconception(
            "one-write-a-block",
            "c_proj is divided by √n_layer; a block writes twice, so it is √(2 · n_layer)",
            wrong=_variant(n_terms=lambda n_layer: n_layer),
        ),
        Misconception(
            "random-biases",
            "the biases are random; they start at 0",
            wrong=_variant(zero=lambda name: False),
        ),
        Misconception(
            "c-proj-bias-is-random",
            'c_proj.bias is drawn like a matrix: a test for "c_proj" in the name finds the bias '
            "too, so ask for the bias first",
            wrong=_variant(
                zero=lambda name: name.endswith("bias") and "c_proj" not in name,
                residual=lambda name: "c_proj" in name,
            ),
        ),
        Misconception(
            "gains-at-zero",
            "the gains of the layer norms are 0: every part would read zeros; they start at 1",
            wrong=_variant(gain=lambda weight: init.zeros_(weight)),
        ),
        Misconception(
            "norms-biases-at-1",
            "the biases of the layer norms are 1; only their gains are (their names end in "
            "weight), every bias starts at 0",
            wrong=_vectors_at_1,
        ),
        Misconception(
            "random-gains",
            "the gains of the layer norms are drawn with std 0.02, which shrinks all that passes "
            "to a fiftieth; they start at 1",
            wrong=_variant(gain=lambda weight: init.normal_(weight, std=0.02)),
        ),
        Misconception("needs-no-grad", test=_needs_no_grad, when_right=True),
    ],
)
