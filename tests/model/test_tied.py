"""One matrix at both ends: rows looked up, and the head, with one gradient."""

import pytest
import torch
from tensors_made import TensorsMade
from torch.nn import functional as F

from gpt2lib import GPT, GPTConfig
from gpt2lib.model.kernels.tied import look_up

V, C = 30, 4
WITHOUT = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_GPU = [pytest.mark.gpu, WITHOUT]
IDX = torch.tensor([[3, 3, 7], [3, 0, 29]])


def matrix():
    """A leaf, (V, C)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(V, C, generator=generator).requires_grad_()


def used(rows, head, parts):
    """A number that depends on the rows, on the head, or on both."""
    of_rows = (rows * torch.arange(1.0, 7).view(2, 3, 1)).sin().sum()
    return of_rows * ("rows" in parts) + head.cos().mul(torch.arange(C)).sum() * ("head" in parts)


@pytest.mark.parametrize("parts", [("rows", "head"), ("rows",), ("head",)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
def test_both_gradients_are_in_the_sum(parts, device):
    weight, plain = (matrix().detach().to(device).requires_grad_() for _ in range(2))
    idx = IDX.to(device)
    rows, head = look_up(weight, idx)
    assert torch.equal(head, weight) and torch.equal(rows, F.embedding(idx, weight))
    used(rows, head, parts).backward()
    used(F.embedding(idx, plain), plain, parts).backward()
    torch.testing.assert_close(weight.grad, plain.grad)


@pytest.mark.parametrize("parts", ["rows", "head"])
def test_one_of_the_two_may_be_unused(parts):
    weight, plain = matrix(), matrix()
    dict(zip(("rows", "head"), look_up(weight, IDX), strict=True))[parts].sin().sum().backward()
    alone = {"rows": F.embedding(IDX, plain), "head": plain}[parts]
    alone.sin().sum().backward()
    torch.testing.assert_close(weight.grad, plain.grad)


@pytest.mark.parametrize("bad", [V, -1])
def test_an_id_outside_the_vocabulary_is_refused(bad):
    with pytest.raises(IndexError):
        look_up(matrix(), torch.tensor([[0, bad]]))


def test_a_frozen_matrix_is_left_alone():
    rows, head = look_up(matrix().detach(), IDX)
    assert not rows.requires_grad and not head.requires_grad


@pytest.mark.parametrize("tie", [True, False])
def test_a_tied_model_makes_no_whole_gradient_of_the_lookup(tie):
    """It would be the largest thing that the end of a backward pass makes."""
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(block_size=8, vocab_size=211, n_layer=1, n_head=1, n_embd=12, tie_weights=tie)
    )
    idx = torch.randint(211, (2, 8))
    with TensorsMade() as made:
        model(idx, idx)[0].backward()
    whole = [one.operation for one in made.found if one.shape == (211, 12)]
    assert whole and any("embedding" in name or "zeros" in name for name in whole) != tie
