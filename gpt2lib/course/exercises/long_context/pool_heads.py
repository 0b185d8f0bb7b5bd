"""Notebook 13: Many key heads become few."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.long_context.shared import draw

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")


def _pool(share_heads: Function) -> Function:
    """Convert a model of one layer whose keys are made by `weight`, and read them again."""

    def pool(weight: Any, n_kv_head: int, head_size: int) -> Any:
        C = weight.size(1)
        shape = config.GPTConfig(
            vocab_size=2, block_size=1, n_layer=1, n_head=C // head_size, n_embd=C
        )
        made = model.GPT(shape)
        with torch.no_grad():
            made.transformer.h[0].attn.c_attn.weight[C : 2 * C] = weight
        shared = share_heads(made, n_kv_head).transformer.h[0].attn.c_attn.weight
        return shared[C : C + n_kv_head * head_size].detach()

    return pool


def _by_head(weight: Any, head_size: int) -> Any:
    return weight.view(-1, head_size, weight.size(1))  # (nh, hs, C)


EXERCISE = Exercise(
    id="pool-heads",
    notebook="13",
    title="Many key heads become few",
    signature="my_pool_heads(weight, n_kv_head, head_size)",
    reference="gpt2lib.model.surgery:share_heads",
    adapt=_pool,
    cases=lambda: [case(*draw((8, 8)), 2, 2), case(*draw((18, 18), seed=1), 2, 3)],
    hints=[
        "The rows of the weight are the channels of the keys: head 0 owns the first hs rows, "
        "head 1 the next hs.",
        "Cut the rows three ways: (n_kv_head, heads in a group, head_size, C). Which of the "
        "four dimensions is averaged?",
        "weight.view(n_kv_head, -1, head_size, weight.size(1)).mean(1).flatten(0, 1)",
    ],
    misconceptions=[
        Misconception(
            "mixes-channels",
            "you averaged neighbouring rows, which are channels of one head. Channel i of a "
            "head is averaged with channel i of the other heads: view as (n_kv_head, group, "
            "head_size, C) and take the mean over the group",
            wrong=lambda weight, n_kv_head, head_size: weight.view(
                n_kv_head * head_size, -1, weight.size(1)
            ).mean(1),
        ),
        Misconception(
            "every-nth-head",
            "you pooled every n_kv_head-th head. A group is a run of neighbours, since these "
            "are the query heads that will share the result",
            wrong=lambda weight, n_kv_head, head_size: (
                _by_head(weight, head_size).unflatten(0, (-1, n_kv_head)).mean(0).flatten(0, 1)
            ),
        ),
        Misconception(
            "sums",
            "these are sums: keys that are as many times longer make scores that are as many "
            "times larger. Take the mean",
            wrong=lambda weight, n_kv_head, head_size: (
                _by_head(weight, head_size).unflatten(0, (n_kv_head, -1)).sum(1).flatten(0, 1)
            ),
        ),
        Misconception(
            "first-head",
            "each group kept its first head and threw the others away; that is the method "
            "'first', and here the mean is asked for",
            wrong=lambda weight, n_kv_head, head_size: (
                _by_head(weight, head_size).unflatten(0, (n_kv_head, -1))[:, 0].flatten(0, 1)
            ),
        ),
        Misconception(
            "group-for-number",
            "n_kv_head is how many heads are left, not how many make a group",
            wrong=lambda weight, n_kv_head, head_size: (
                _by_head(weight, head_size).unflatten(0, (-1, n_kv_head)).mean(1).flatten(0, 1)
            ),
        ),
        Misconception(
            "pools-the-inputs",
            "you averaged the columns, which are the channels that the layer reads. Heads lie "
            "in the rows",
            wrong=lambda weight, n_kv_head, head_size: (
                weight.view(weight.size(0), n_kv_head, -1, head_size).mean(2).flatten(1, 2)
            ),
        ),
    ],
)
