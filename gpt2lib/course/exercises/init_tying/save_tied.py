"""Notebook 07: Each matrix once in the file."""

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")


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


EXERCISE = Exercise(
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
