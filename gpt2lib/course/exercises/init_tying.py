"""Exercises of notebook 07."""

import math
from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
init: Any = lazy("torch.nn.init")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")


def _uniform_loss(next_token_loss: Any) -> Any:
    """Ask the library's loss what equal scores for every token cost."""

    def initial_loss(vocab_size: int) -> float:
        target = torch.zeros(1, 1, dtype=torch.long)
        return float(next_token_loss(torch.zeros(1, 1, vocab_size), target)[0])

    return initial_loss


EXPECTED_INITIAL_LOSS = Exercise(
    id="expected-initial-loss",
    notebook="07",
    title="What a model that knows nothing should lose",
    signature="my_initial_loss(vocab_size)",
    reference="gpt2lib.model.loss:next_token_loss",
    adapt=_uniform_loss,
    cases=lambda: [case(2), case(65), case(1024), case(50257)],
    hints=[
        "A model that knows nothing gives each of the V tokens the same probability. Which one?",
        "The loss of one token is minus the natural logarithm of its probability.",
        "-math.log(1 / vocab_size), which is math.log(vocab_size)",
    ],
    misconceptions=[
        Misconception(
            "bits-not-nats",
            "this is the loss in bits; the library counts in nats, so take math.log, not math.log2",
            wrong=lambda vocab_size: math.log2(vocab_size),
        ),
        Misconception(
            "log10",
            "this is the logarithm to base 10; the loss takes the natural one, math.log",
            wrong=lambda vocab_size: math.log10(vocab_size),
        ),
        Misconception(
            "negative",
            lambda seen: (
                f"{seen.got:.2f} is the log-probability, which is below 0; the loss is minus that"
            ),
            wrong=lambda vocab_size: math.log(1 / vocab_size),
        ),
        Misconception(
            "probability",
            "this is the probability of one token; the loss is minus the logarithm of it",
            wrong=lambda vocab_size: 1 / vocab_size,
        ),
        Misconception(
            "perplexity",
            "the number of equally likely choices is the perplexity; the loss is its logarithm",
            wrong=lambda vocab_size: float(vocab_size),
        ),
    ],
)


RESIDUAL_INIT_STD = Exercise(
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


INIT_PARAMETER = Exercise(
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


def _pair() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(4, 7, bias=False)
    embedding = torch.nn.Embedding(7, 4)
    for part in (head, embedding):
        part.weight.data.normal_(generator=generator)
    return head, embedding


def _copied(my_tie: Any) -> bool:
    head, embedding = _pair()
    wanted = embedding.weight.detach().clone()
    my_tie(head, embedding)
    apart = head.weight.data_ptr() != embedding.weight.data_ptr()
    return apart and bool(torch.equal(head.weight, wanted))


def _two_parameters(my_tie: Any) -> bool:
    head, embedding = _pair()
    my_tie(head, embedding)
    shared = head.weight.data_ptr() == embedding.weight.data_ptr()
    return shared and head.weight is not embedding.weight


def _other_way(my_tie: Any) -> bool:
    head, embedding = _pair()
    wanted = head.weight.detach().clone()
    my_tie(head, embedding)
    return embedding.weight is head.weight and bool(torch.equal(head.weight, wanted))


def _still_apart(my_tie: Any) -> str | None:
    """Say what is seen where both parts still have the Parameter that they had."""
    head, embedding = _pair()
    before = head.weight, embedding.weight
    numbers = [weight.detach().clone() for weight in before]
    my_tie(head, embedding)
    if head.weight is not before[0] or embedding.weight is not before[1]:
        return None
    if torch.equal(embedding.weight, numbers[0]):
        return (
            "the embedding's numbers were overwritten with the head's, and there are still two "
            "Parameters; the head must hold the embedding's Parameter"
        )
    if not all(torch.equal(weight, old) for weight, old in zip(before, numbers, strict=True)):
        return "there are still two Parameters, with other numbers; assign to head.weight"
    return (
        "both parts still have their own weight, with the numbers that they had: nothing was "
        "assigned to head.weight (an assignment to the name `head` changes nothing outside of "
        "your function)"
    )


def _transposed(my_tie: Any) -> bool:
    head, embedding = _pair()
    my_tie(head, embedding)
    return tuple(head.weight.shape) == (4, 7)


TIE_WEIGHTS = Exercise(
    id="tie-weights",
    notebook="07",
    title="One matrix for both ends",
    signature="my_tie(head, embedding)",
    reference="gpt2lib.model.init:tie",
    inplace=True,
    cases=lambda: [case(*_pair())],
    hints=[
        "Both matrices have the shape (V, C) already; nothing has to be transposed.",
        "Numbers that are equal now will differ after one step. The head must hold the very "
        "Parameter object of the embedding.",
        "One assignment of one attribute of `head`.",
    ],
    misconceptions=[
        Misconception(
            "transposed",
            "the head's weight has become (C, V): nn.Linear keeps its matrix as (outputs, "
            "inputs), here (V, C), which is the embedding's shape already",
            test=_transposed,
        ),
        Misconception(
            "other-way-round",
            "they are tied, but the embedding took the head's matrix; a published file holds the "
            "embedding's, so the head must take that one",
            test=_other_way,
        ),
        Misconception(
            "two-parameters",
            "the numbers share their memory, but there are two Parameters: each gets the "
            "gradient of its own use alone, and the optimiser steps both. Assign the Parameter",
            test=_two_parameters,
        ),
        Misconception(
            "tied-by-copy",
            "the numbers are equal, but there are two of each: data_ptr() differs, and after one "
            "step they drift apart. Share the Parameter instead of copying its numbers",
            test=_copied,
        ),
        Misconception("nothing-happened", test=_still_apart),
    ],
)


def _gpt(tied: bool, n_layer: int = 1) -> Any:
    return model.GPT(
        config.GPTConfig(
            vocab_size=11, block_size=4, n_layer=n_layer, n_head=2, n_embd=4, tie_weights=tied
        )
    )


def _save_cases() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        repeated = _gpt(tied=True, n_layer=2)  # a second pair of names, in the middle
        first, second = repeated.transformer.h
        second.mlp.c_fc.weight = first.mlp.c_fc.weight
        return [case(_gpt(tied=True)), case(_gpt(tied=False)), case(repeated)]


def _distinct_values(a_model: Any) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, tensor in a_model.state_dict().items():
        if not any(torch.equal(tensor, other) for other in kept.values()):
            kept[name] = tensor
    return kept


def _last_names(a_model: Any) -> dict[str, Any]:
    kept: dict[int, tuple[str, Any]] = {}
    for name, tensor in a_model.state_dict().items():
        kept[tensor.data_ptr()] = name, tensor
    return dict(kept.values())


SAVE_TIED = Exercise(
    id="save-tied",
    notebook="07",
    title="Each matrix once in the file",
    signature="my_tensors_to_save(model)",
    reference="gpt2lib.model.weights:model_tensors",
    cases=_save_cases,
    hints=[
        "state_dict() names every place where a tensor stands, so a tied one appears twice.",
        "named_parameters() names each Parameter object once. The other way is to look at "
        "data_ptr() and skip what was seen before.",
        "dict(model.named_parameters())",
    ],
    misconceptions=[
        Misconception(
            "saves-both-names",
            "the tied matrix is in it under two names; safetensors refuses that. Keep the first",
            wrong=lambda model: dict(model.state_dict()),
        ),
        Misconception(
            "always-drops-the-head",
            "an untied model has a head of its own, and you lost it: ask whether the two are one "
            "tensor, not what they are called",
            wrong=lambda model: {
                k: v for k, v in model.state_dict().items() if k != "lm_head.weight"
            },
        ),
        Misconception(
            "drops-the-embedding",
            "you kept lm_head.weight and dropped transformer.wte.weight; published files hold "
            "the embedding, which is also the first of the two names",
            wrong=_last_names,
        ),
        Misconception(
            "compares-values",
            lambda seen: (
                f"{next(name for name in seen.expected if name not in seen.got)} is missing. Its "
                "numbers are those of another tensor, but it is one of its own: all biases start "
                "at 0 and all gains at 1. Ask whether two names share memory"
            ),
            wrong=_distinct_values,
        ),
        Misconception(
            "names-by-count",
            "names and tensors do not belong together: state_dict() has one name more than "
            "parameters() has tensors for each tensor that has two, so counting along both lists "
            "shifts all that follow. named_parameters() gives the pairs",
            wrong=lambda model: dict(
                zip(model.state_dict(), (p.detach() for p in model.parameters()), strict=False)
            ),
        ),
    ],
)


def _zero_projections(a_model: Any) -> Any:
    """Set to 0 the weights that write into the residual stream; return the model."""
    for name, weight in a_model.named_parameters():
        if name.endswith("c_proj.weight"):
            torch.nn.init.zeros_(weight)
    return a_model


def _zero_cases() -> Any:
    """Return models whose residual projections are 0, of several shapes."""
    shape = {"vocab_size": 11, "block_size": 4, "n_layer": 1, "n_head": 2, "n_embd": 4}
    kinds: list[dict[str, Any]] = [{}, {"bias": False, "tie_weights": False}, {"n_layer": 2}]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = [model.GPT(config.GPTConfig(**shape | kind)) for kind in kinds]
    return [case(_zero_projections(gpt)) for gpt in made]


def _asleep(forward: Any) -> Any:
    """Ask the library's model for a first gradient, and name what is 0 in it."""

    def asleep(a_model: Any) -> list[str]:
        idx = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])  # (B, T)
        loss, _ = forward(a_model, idx, idx.roll(-1, 1))
        named = dict(a_model.named_parameters())
        gradients = torch.autograd.grad(loss, list(named.values()))
        return sorted(n for n, g in zip(named, gradients, strict=True) if not g.any())

    return asleep


def _stale(my_asleep: Any) -> bool:
    """Give the model gradients of an earlier backward pass."""
    (a_model,) = _zero_cases()[0].args
    fresh = my_asleep(_zero_cases()[0].args[0])
    for p in a_model.parameters():
        p.grad = torch.ones_like(p)
    return bool(fresh) and not my_asleep(a_model)


def _named(keep: Callable[[str, Any], bool]) -> Any:
    return lambda a_model: sorted(n for n, p in a_model.named_parameters() if keep(n, p))


ASLEEP_AT_FIRST = Exercise(
    id="asleep-at-first",
    notebook="07",
    title="What has no gradient while c_proj is 0",
    signature="my_asleep(model)",
    reference="gpt2lib.model.gpt:GPT.forward",
    adapt=_asleep,
    shows="gpt2lib.model.gpt:Block",
    cases=_zero_cases,
    hints=[
        "In y = c_proj(h), the gradient of h is what comes from above, times c_proj's weights. "
        "And those are 0.",
        "So everything that acts on the loss through some h alone sleeps: what comes before c_proj "
        "in its block. The stream itself goes past the blocks.",
        "The names in blocks contain '.h.', and of those only the c_proj, weight and bias, are "
        "awake.",
        "sorted(n for n, p in model.named_parameters() if '.h.' in n and 'c_proj' not in n)",
    ],
    misconceptions=[
        Misconception(
            "what-is-zero",
            "these are the weights that are 0, and they do have a gradient: it is made of their "
            "input and of what comes from above, and neither is 0",
            wrong=_named(lambda name, p: name.endswith("c_proj.weight")),
        ),
        Misconception(
            "whole-blocks",
            "you name whole blocks; then nothing in them would ever move. c_proj has a gradient, "
            "and wakes the others",
            wrong=_named(lambda name, p: ".h." in name),
        ),
        Misconception(
            "bias-behind-the-zeros",
            "c_proj.bias is added after the zeros: nothing stands between it and the stream, so it "
            "has a gradient",
            wrong=_named(lambda name, p: ".h." in name and not name.endswith("c_proj.weight")),
        ),
        Misconception(
            "matrices-only",
            "the biases and layer norms before c_proj act through the same zeros as the matrices, "
            "so they sleep, too",
            wrong=_named(lambda name, p: ".h." in name and "c_proj" not in name and p.dim() > 1),
        ),
        Misconception(
            "all-but-c-proj",
            "the stream goes past the blocks, from the embeddings to the head: those have a "
            "gradient, and the last layer norm",
            wrong=_named(lambda name, p: "c_proj" not in name),
        ),
        Misconception(
            "mlp-only",
            "attention ends in a c_proj of its own, so what comes before that sleeps as well",
            wrong=_named(lambda name, p: ".h." in name and ("c_fc" in name or "ln_2" in name)),
        ),
        Misconception(
            "old-gradients-count",
            "on a model that has gradients already nothing sleeps for you: backward adds to what "
            "is in p.grad. Empty it first, model.zero_grad()",
            test=_stale,
            when_right=True,
        ),
    ],
)

EXERCISES = [
    EXPECTED_INITIAL_LOSS,
    RESIDUAL_INIT_STD,
    INIT_PARAMETER,
    ASLEEP_AT_FIRST,
    TIE_WEIGHTS,
    SAVE_TIED,
]
