"""Notebook 07: What has no gradient while c_proj is 0."""

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")


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


EXERCISE = Exercise(
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
