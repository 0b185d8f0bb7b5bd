"""The shape of a model: patterns are spread, and what cannot work is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from gpt2lib.config import GPTConfig
from gpt2lib.utils.errors import UserError

SHAPE = {"block_size": 64, "n_layer": 4, "n_head": 6, "n_embd": 48}


def shape(**fields: Any) -> GPTConfig:
    """Build it as a preset or the command line does, from plain values."""
    return GPTConfig.from_dict({**SHAPE, **fields})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"n_kv_head": 4}, ["n_head 6", "n_kv_head 4", "1, 2, 3, 6"]),
        ({"n_kv_head": 12}, ["n_head 6", "n_kv_head 12", "1, 2, 3, 6"]),
        ({"n_kv_head": 0}, ["n_kv_head", "at least 1", "not 0"]),
        ({"position": "rope", "n_embd": 42}, ["rope", "42", "n_head 6", "heads of 7", "even"]),
        ({"position": "rotary"}, ["position", "learned, rope, none", "'rotary'"]),
        ({"rope_base": 1.0}, ["rope_base", "above 1", "not 1.0"]),
        ({"rope_base": float("inf")}, ["rope_base", "not inf"]),
        ({"rope_base": float("nan")}, ["rope_base", "not nan"]),
        ({"rope_scale": 0.0}, ["rope_scale", "above 0", "not 0.0"]),
        ({"rope_scale": -2.0}, ["rope_scale", "not -2.0"]),
        ({"window": 0}, ["window", "at least 1", "not 0"]),
        ({"window": [8, -3]}, ["window", "at least 1", "-3"]),
        ({"window": [2, 4, 8]}, ["window", "3 entries", "4 layers"]),
        ({"window": []}, ["window", "0 entries", "4 layers"]),
        ({"window": 2.5}, ["window", "2.5"]),
        ({"dilation": 2}, ["dilation 2", "window", "not set"]),
        ({"dilation": [[1, 2]]}, ["dilation", "window", "not set"]),
        ({"window": 4, "dilation": 0}, ["dilation", "at least 1", "not 0"]),
        ({"window": 4, "dilation": [[1, -1]]}, ["dilation", "at least 1", "-1"]),
        ({"window": 4, "dilation": [[1]] * 3}, ["dilation", "3 entries", "4 layers"]),
        ({"window": 4, "dilation": [[1, 1, 2, 2]]}, ["dilation", "4 entries", "6 heads"]),
        ({"window": 4, "dilation": [[]]}, ["dilation", "0 entries", "6 heads"]),
        ({"global_tokens": [0]}, ["global_tokens (0,)", "window", "not set"]),
        ({"window": 4, "global_tokens": [64]}, ["64", "block_size 64", "0 to 63"]),
        ({"window": 4, "global_tokens": [0, -1]}, ["-1", "block_size 64", "0 to 63"]),
        ({"without": ["attention"]}, ["without", "mlp, residual, layer_norm", "'attention'"]),
        ({"n_layer": -1}, ["n_layer", "at least 0", "not -1"]),
        ({"n_embd": 50}, ["n_embd 50", "n_head 6", "48 would be"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(fields: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        shape(**fields)
    line = str(refused.value)
    assert "\n" not in line
    for part in says:
        assert part in line


@pytest.mark.parametrize(
    "fields",
    [
        {"n_kv_head": 1, "window": [64], "dilation": [[1, 2, 3]], "global_tokens": [0, 63]},
        {"n_kv_head": 6, "window": 1, "position": "none", "without": ["mlp", "layer_norm"]},
        {"position": "rope", "rope_base": 1.5, "rope_scale": 0.5},
        {"n_embd": 42},  # heads of 7, which only rope cannot turn
        {"n_layer": 0, "window": 3},
    ],
)
def test_what_can_work_is_kept_as_written(fields: dict[str, Any]) -> None:
    written = shape(**fields).to_dict()
    assert {key: written[key] for key in fields} == fields
    assert GPTConfig.from_dict(written) == shape(**fields)


@pytest.mark.parametrize(("n_kv_head", "heads"), [(None, 6), (6, 6), (2, 2), (1, 1)])
def test_key_value_heads_default_to_one_a_head(n_kv_head: int | None, heads: int) -> None:
    assert shape(n_kv_head=n_kv_head).kv_heads == heads


@pytest.mark.parametrize(
    ("window", "spread"),
    [
        (None, (None,) * 4),
        (7, (7,) * 4),
        ([7], (7,) * 4),
        ([8, 16], (8, 8, 16, 16)),  # small windows low
        ([1, 2, 3, 4], (1, 2, 3, 4)),
    ],
)
def test_windows_are_spread_over_the_layers_from_below(
    window: int | list[int] | None, spread: tuple[int | None, ...]
) -> None:
    assert shape(window=window).windows == spread


@pytest.mark.parametrize(
    ("dilation", "first", "last"),
    [
        (3, (3,) * 6, (3,) * 6),
        ([[3]], (3,) * 6, (3,) * 6),
        ([[1, 2, 3]], (1, 1, 2, 2, 3, 3), (1, 1, 2, 2, 3, 3)),
        ([[1], [1, 5]], (1,) * 6, (1, 1, 1, 5, 5, 5)),
        ([[1], [1], [1], [1, 2, 3, 4, 5, 6]], (1,) * 6, (1, 2, 3, 4, 5, 6)),
    ],
)
def test_dilations_are_spread_over_layers_and_heads(
    dilation: int | list[list[int]], first: tuple[int, ...], last: tuple[int, ...]
) -> None:
    dilations = shape(window=4, dilation=dilation).dilations
    assert len(dilations) == 4
    assert (dilations[0], dilations[-1]) == (first, last)


def test_lists_become_tuples() -> None:
    config = GPTConfig(n_layer=2, window=[4, 8], dilation=[[1], [2]], global_tokens=[0])  # type: ignore[arg-type]
    assert (config.window, config.dilation, config.global_tokens) == ((4, 8), ((1,), (2,)), (0,))
    assert hash(config) == hash(
        GPTConfig(n_layer=2, window=(4, 8), dilation=((1,), (2,)), global_tokens=(0,))
    )
