"""Notebook 12: What the model would say now."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Misconception, case, lazy
from gpt2lib.course.exercises.gpt2_itself.shared import draw

torch: Any = lazy("torch")
functional: Any = lazy("torch.nn.functional")
config: Any = lazy("gpt2lib.config")
gpt: Any = lazy("gpt2lib.model.gpt")


def _lens_model(seed: int) -> Any:
    """Return a small model whose last layer norm does something that can be seen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = gpt.GPT(config.GPTConfig(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=8))
        for norm in (model.transformer.ln_f, model.transformer.h[-1].ln_2):
            torch.nn.init.normal_(norm.weight, mean=1.0, std=0.5)
            torch.nn.init.normal_(norm.bias)
    return model.eval()


def _lens_cases() -> list[Case]:
    return [case(_lens_model(0), 3 * draw(2, 5, 8)), case(_lens_model(1), draw(4, 8, seed=1) + 2)]


def _plain_norm(model: Any, stream: Any) -> Any:
    return functional.layer_norm(stream, stream.shape[-1:]) @ model.lm_head.weight.T


def _block_norm(model: Any, stream: Any) -> Any:
    return model.lm_head(model.transformer.h[-1].ln_2(stream))


def _lens(model: Any, stream: Any) -> Any:
    return model.lm_head(model.transformer.ln_f(stream))


EXERCISE = Exercise(
    id="logit-lens",
    notebook="12",
    title="What the model would say now",
    signature="my_logit_lens(model, stream)",
    reference="gpt2lib.course.inside:logit_lens",
    cases=_lens_cases,
    hints=[
        "What does the model itself do with the stream after its last block?",
        "Two modules come after the blocks: transformer.ln_f and lm_head.",
        "model.lm_head(model.transformer.ln_f(stream))",
    ],
    misconceptions=[
        Misconception(
            "no-layer-norm",
            "the head never reads the stream itself: the last layer norm comes before it, and "
            "without it a stream that has grown long makes every score large",
            wrong=lambda model, stream: model.lm_head(stream),
        ),
        Misconception(
            "norm-without-gain",
            "this layer norm has neither gain nor bias; the model's own, ln_f, has both",
            wrong=_plain_norm,
        ),
        Misconception(
            "another-layers-norm",
            "this is the layer norm inside a block; the one before the head is ln_f",
            wrong=_block_norm,
        ),
        Misconception(
            "probabilities",
            "these are probabilities; the lens returns logits, as the model does",
            wrong=lambda model, stream: _lens(model, stream).softmax(-1),
        ),
        Misconception(
            "normed-twice",
            "the layer norm acts twice here: the result of ln_f is normed again",
            wrong=lambda model, stream: _lens(model, model.transformer.ln_f(stream)),
        ),
    ],
)
