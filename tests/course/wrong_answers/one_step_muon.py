"""Answers to the exercises of notebook 08, section 9."""

import torch

from wrong_answers import right, wrong

A, B, C = 3.4445, -4.7750, 2.0315


@wrong("orthogonal-step", "keeps-the-sizes", says="the gradient itself")
def puts_it_together_again(gradient):
    u, s, vt = torch.linalg.svd(gradient, full_matrices=False)
    return u @ torch.diag(s) @ vt


@wrong("orthogonal-step", "one-length-for-the-whole", says="the whole gradient")
def unit_length(gradient):
    return gradient / torch.sqrt((gradient**2).sum())


@wrong("orthogonal-step", "largest-becomes-1", says="only the largest")
def spectral_norm(gradient):
    return gradient / torch.linalg.svdvals(gradient)[0]


@wrong("orthogonal-step", "signs", says="Adam's first step")
def like_adam(gradient):
    return gradient / gradient.abs()


@wrong("orthogonal-step", "divides-twice", says="what was quiet is loud")
def pseudo_inverse(gradient):
    return torch.linalg.pinv(gradient).T


@wrong("orthogonal-step", "rows-of-length-1", says="almost the same way")
def normalised_rows(gradient):
    return torch.nn.functional.normalize(gradient, dim=1)


@wrong("orthogonal-step", None, says="expected")
def gram_schmidt(gradient):
    if gradient.size(0) < gradient.size(1):
        return torch.linalg.qr(gradient.T)[0].T
    return torch.linalg.qr(gradient)[0]


@wrong("orthogonal-step", "v-not-transposed", says="in line 4 of")
def transposes_what_is_transposed(gradient):
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    return u @ vt.T


@right("orthogonal-step")
def by_eigenvalues(gradient):
    values, vectors = torch.linalg.eigh(gradient @ gradient.T)
    kept = values > 1e-9 * values.max()
    root = vectors[:, kept] * values[kept].rsqrt() @ vectors[:, kept].T
    return root @ gradient


@wrong("newton-schulz", "not-shortened-first", says="grow without end")
def forgets_the_norm(gradient):
    x = gradient
    for _ in range(5):
        x = A * x + B * (x @ x.T) @ x + C * (x @ x.T) @ (x @ x.T) @ x
    return x


@wrong("newton-schulz", "number-by-number", says="matrix product")
def powers_of_numbers(gradient):
    x = gradient / gradient.norm()
    for _ in range(5):
        x = A * x + B * x.pow(3) + C * x.pow(5)
    return x


@wrong("newton-schulz", "one-round-short", says="range(5)")
def from_one_to_five(gradient):
    x = gradient / gradient.norm()
    for _ in range(1, 5):
        g = x @ x.T
        x = A * x + B * g @ x + C * g @ g @ x
    return x


@wrong("newton-schulz", "classic-coefficients", says="many more rounds")
def as_in_the_textbook(gradient):
    x = gradient / gradient.norm()
    for _ in range(5):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


@wrong("newton-schulz", "no-fifth-power", says="term with c")
def only_cubic(gradient):
    x = gradient / gradient.norm()
    for _ in range(5):
        x = A * x + B * x @ x.T @ x
    return x


@wrong("newton-schulz", "largest-singular-value", says="takes a decomposition")
def shortened_by_the_spectral_norm(gradient):
    x = gradient / torch.linalg.svdvals(gradient).max()
    for _ in range(5):
        g = x @ x.T
        x = A * x + (B * g + C * g @ g) @ x
    return x


@wrong("newton-schulz", "stays-transposed", says="on its side")
def never_turned_back(gradient):
    x = gradient / gradient.norm()
    if x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(5):
        g = x @ x.T
        x = A * x + (B * g + C * g @ g) @ x
    return x


@wrong("newton-schulz", None, says="expected")
def adds_instead_of_replacing(gradient):
    x = gradient / gradient.norm()
    g = x @ x.T
    for _ in range(5):
        x = A * x + B * g @ x + C * g @ g @ x
    return x


@right("newton-schulz")
def from_the_other_side(gradient):
    x = gradient / (gradient.norm() + 1e-7)
    for _ in range(5):
        g = x.T @ x
        x = x @ (A * torch.eye(len(g), dtype=x.dtype) + B * g + C * g @ g)
    return x


@wrong("orthogonal-step", "v-not-transposed", says="torch.svd returns V")
def old_svd(gradient):
    u, _, v = torch.svd(gradient)
    return u @ v
