"""Solutions of notebook 07."""

import math

import torch
from torch import nn


def my_initial_loss(vocab_size):
    """Return the loss of one token, in nats, if all tokens are equally likely: a float.

    vocab_size: an int.
    """
    return math.log(vocab_size)


def my_residual_std(n_layer):
    """Return the initial std of `c_proj`, a float. n_layer: an int, the number of blocks."""
    return 0.02 / math.sqrt(2 * n_layer)


def my_init_parameter(weight, name, n_layer):
    """Give one parameter its initial value, in place; return nothing.

    weight: a float tensor or nn.Parameter. name: a str. n_layer: an int.
    """
    if name.endswith("bias"):
        nn.init.zeros_(weight)
    elif weight.dim() == 1:
        nn.init.ones_(weight)
    elif name.endswith("c_proj.weight"):
        nn.init.normal_(weight, std=my_residual_std(n_layer))
    else:
        nn.init.normal_(weight, std=0.02)


def my_asleep(model):
    """Return the sorted names of the parameters without gradient at first: a list of str.

    model: a GPT.
    """
    T = model.config.block_size
    idx = torch.randint(model.config.vocab_size, (4, T + 1))
    loss, _ = model(idx[:, :-1], idx[:, 1:])
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    return sorted(name for name, grad in zip(names, gradients, strict=True) if not grad.any())


def my_tie(head, embedding):
    """Make the head use the embedding's matrix, in place; return nothing.

    head: an nn.Linear. embedding: an nn.Embedding.
    """
    head.weight = embedding.weight


def my_tensors_to_save(model):
    """Return a dict from name to tensor, each tensor once, under its first name. model: a GPT."""
    kept, addresses = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in addresses:
            addresses.add(tensor.data_ptr())
            kept[name] = tensor
    return kept
