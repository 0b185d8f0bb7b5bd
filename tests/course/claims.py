"""Whether a sentence of the second look is true, told apart from the code that says it.

Everything is computed again from the two values with PyTorch and plain Python, and every number
that the sentence names is read from it.
"""

import math
import re

import torch

NUMBER = r"(-?(?:\d[\d.]*(?:e[-+]?\d+)?|inf|nan))"


def tensor(value):
    return torch.as_tensor(value).double()


def close(a, b, tol=1e-3):
    """Equal to three digits, as far as a sentence's four digits go."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    if a.shape != b.shape:
        return False
    top = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 0.0
    return torch.allclose(a, b, rtol=tol, atol=1e-5 * top + 1e-12, equal_nan=True)


def different(e, g):
    return ~torch.isclose(g, e, rtol=1e-5, atol=1e-6, equal_nan=True)


def numbers_in(text):
    return [float(n) for n in re.findall(NUMBER, text)]


def positions_in(text, ndim):
    """Return the positions that are named, and how many more there are."""
    pattern = r"\(\d+(?:, \d+)+\)" if ndim > 1 else r"\d+(?=[,:;.]|$| and|\Z)"
    found = re.findall(pattern, text)
    more = re.search(r"and (\d+) more", text)
    named = [tuple(int(i) for i in re.findall(r"\d+", f)) for f in found]
    return named, int(more[1]) if more else 0


def at_positions(text, where):
    """The positions named in the text (with "and n more") are those where `where` is true."""
    text = re.sub(r" and \d+ more", "", text) if where.ndim == 1 else text
    named, _ = positions_in(text, where.ndim)
    real = [tuple(i) for i in where.nonzero().tolist()]
    return named and named == real[: len(named)] and len(named) == min(4, len(real))


def nan(text, e, g):
    bad = ~g.isfinite() & e.isfinite()
    kinds = {"NaN": g.isnan(), "infinity": g == math.inf, "-infinity": g == -math.inf}
    what = re.match(r"it is (NaN or infinity|infinity or -infinity|NaN|-?infinity)", text)[1]
    allowed = torch.stack([kinds[k] for k in what.split(" or ")]).any(0)
    if what == "NaN or infinity":
        allowed = ~g.isfinite()
    if not allowed[bad].all():
        return False
    if "everywhere" in text and "right everywhere" not in text:
        return bool(bad.all())
    return not different(e, g)[~bad].any() and (bad.ndim == 0 or at_positions(text, bad))


def nan_some(text, e, g):
    n, of = map(int, re.search(r"at (\d+) of (\d+) positions", text).groups())
    return n == int((~g.isfinite() & e.isfinite()).sum()) and of == g.numel()


def constant(text, e, g):
    if ", where" in text and not close(e, torch.full_like(e, numbers_in(text)[1])):
        return False
    if "True" in text or "False" in text:
        return bool((g == float("True" in text)).all())
    return close(g, torch.full_like(g, numbers_in(text)[0]))


def sign(text, e, g):
    return close(g, -e) and bool(e.any())


def sign_at(text, e, g):
    return close(g.abs(), e.abs()) and at_positions(text.partition(" at ")[2], different(e, g))


def factor(text, e, g):
    return close(g, numbers_in(text)[0] * e)


def offset(text, e, g):
    by = numbers_in(text)[0] * (1 if "large" in text else -1)
    finite = e.isfinite()
    return close((g - e)[finite], torch.full_like(e[finite], by), 2e-3)


TRANSFORMS = {
    "without their minus signs": torch.abs,
    "0 in place of every negative": torch.relu,
    "squares": torch.square,
    "square roots": torch.sqrt,
    "1 divided by": torch.reciprocal,
    "1 minus": lambda v: 1 - v,
    "logarithms of": torch.log,
    "base 2": torch.log2,
    "exponentials": torch.exp,
    "rounded to whole": torch.round,
    "rounded down": torch.floor,
    "rounded up": torch.ceil,
}


def transform(text, e, g):
    return any(part in text and close(g, f(e)) for part, f in TRANSFORMS.items())


def axes(text, e, g):
    if "transposed" in text:
        return close(g.T, e)
    if "exchanged" in text:
        return close(g.transpose(*map(int, re.findall(r"\d+", text)[:2])), e)
    return close(g.permute(*map(int, re.findall(r"\d+", text))), e)


def axis_in(text):
    found = re.search(r"along axis (\d)", text)
    return int(found[1]) if found else 0


def reversed_(text, e, g):
    return close(g.flip(axis_in(text)), e)


def shifted(text, e, g):
    by = int(re.search(r"stand (\d)", text)[1]) * (1 if "too late" in text else -1)
    rolled = e.roll(by, axis_in(text))
    if "around the end" in text:
        return close(g, rolled)
    n, axis = e.size(axis_in(text)), axis_in(text)
    part = (by, n - by) if by > 0 else (0, n + by)
    return close(g.narrow(axis, *part), rolled.narrow(axis, *part))


def order(text, e, g):
    if "rows (axis 0)" in text:
        rows = [int(i) for i in re.search(r"\[(.*)\]", text)[1].split(",")]
        return close(g, e[rows]) and sorted(rows) == list(range(len(e)))
    if "along the last axis" in text:
        return close(g.sort(-1).values, e.sort(-1).values)
    return close(g.flatten().sort().values, e.flatten().sort().values)


def line_axis(text, ndim):
    if "columns" in text:
        return 0
    found = re.search(r"values along axis (\d)", text)
    return int(found[1]) if found else ndim - 1


def normalise(text, e, g):
    axis = line_axis(text, e.ndim)
    size = g.sum(axis, True) if "sum to" in text else g.norm(dim=axis, keepdim=True)
    first = numbers_in(text.rpartition("length" if "length" in text else "sum to")[2])[0]
    return close(g / size, e) and math.isclose(first, size.flatten()[0].item(), rel_tol=1e-3)


def row_factor(text, e, g):
    axis = line_axis(text, e.ndim)
    lines = zip(e.movedim(axis, -1).flatten(0, -2), g.movedim(axis, -1).flatten(0, -2), strict=True)
    return all(
        close(b, b[a.abs().argmax()] / a.abs().max() * a.sgn()[a.abs().argmax()] * a)
        for a, b in lines
    )


def row_offset(text, e, g):
    steps = (g - e).movedim(line_axis(text, e.ndim), -1)
    return bool(((steps.amax(-1) - steps.amin(-1)).abs() <= 1e-3 * e.abs().max()).all())


def where(text, e, g):
    wrong = different(e, g)
    if "diagonal" in text:
        i, j = torch.meshgrid(*map(torch.arange, e.shape[-2:]), indexing="ij")
        region = {"on": i == j, "above": j > i, "below": j < i}
        word = re.search(r"(on|above|below) the diagonal", text)[1]
        return not (wrong & ~region[word]).any()
    index, axis = map(int, re.search(r"index (\d+) of axis (\d)", text).groups())
    rest = [i for i in range(e.size(axis)) if i != index]
    return not wrong.index_select(axis, torch.tensor(rest)).any()


def all_but(text, e, g):
    n, of = map(int, re.search(r"all but (\d+) of (\d+)", text).groups())
    wrong = different(e, g)
    listed = re.sub(r", and \d+ more", "", text.partition(": at ")[2]).split("; ")
    for entry, index in zip(listed, wrong.nonzero().tolist(), strict=False):
        at, _, values = entry.partition(": ")
        if tuple(int(i) for i in re.findall(r"\d+", at)) != tuple(index):
            return False
        if "for" in values:
            got, right = numbers_in(values)
            if not (close(g[tuple(index)], got) and close(e[tuple(index)], right)):
                return False
    return n == int(wrong.sum()) and of == e.numel()


def almost(text, e, g):
    most = float(re.search(NUMBER + " %", text)[1]) / 100
    real = ((g - e).abs() / e.abs())[e != 0].max().item()
    return math.isclose(real, most, rel_tol=0.06) and not g[e == 0].any()


def affine(text, e, g):
    by, plus = numbers_in(text.replace("minus ", "plus -"))[:2]
    return bool(((g - by * e - plus).abs() <= 1e-3 * (abs(plus) + abs(by) * e.abs().max())).all())


def power(text, e, g):
    by, exponent = numbers_in(text)[:2]
    return close(g, by * e**exponent)


def lines(text, e, g):
    axis = re.search(r"of axis (\d)", text)
    axis = int(axis[1]) if axis else 0
    wrong = different(e, g).movedim(axis, 0).flatten(1).any(1) if e.ndim > 1 else different(e, g)
    real = wrong.nonzero().flatten().tolist()
    named = re.search(r"index (\d+(?:, \d+)*)(?: to (\d+))?(?: and (\d+) more)?", text)
    if named[2]:
        return real == list(range(int(named[1]), int(named[2]) + 1))
    listed = [int(n) for n in named[1].split(",")]
    return real[: len(listed)] == listed and len(real) == len(listed) + int(named[3] or 0)


def zeros(text, e, g):
    where_ = (e == 0) & different(e, g) if "is not 0" in text else (g == 0) & different(e, g)
    return at_positions(text.partition(", where")[0].partition(" at ")[2], where_)


def sums(text, e, g):
    said = numbers_in(text.rpartition("sum to")[2])
    real = g.sum(-1).flatten().tolist()
    return close(e.sum(-1), torch.ones(e.shape[:-1])) and close(said, real[: len(said)])


def size(text, e, g):
    ratio = g / e
    said = numbers_in(text)
    ends = [ratio.min().item(), ratio.max().item()]
    if not close([said[0], said[-1]], ends) or ends[0] <= 0:
        return False
    return ends[0] > 1 if "too large" in text else ends[1] < 1


def opposite(text, e, g):
    return bool((g == 1 - e).all())


def one_sided(text, e, g):
    wrong, more = different(e, g), text.startswith("True where False")
    return bool((g[wrong] == float(more)).all()) and at_positions(text.partition(" at ")[2], wrong)


def shape(text, e, g):
    return close(g.flatten(), e.flatten())


def broadcast(text, e, g):
    return close(g.expand(e.shape), e)


def repeated(text, e, g):
    return close(e.expand(g.shape), g)


def length(text, e, g):
    more = int(re.search(r"(\d+)", text)[1])
    few, many = (e, g) if "too many" in text else (g, e)
    axis, n = axis_in(text), few.shape[axis_in(text)]
    return many.size(axis) - n == more and close(
        many.narrow(axis, 0 if "at the end" in text else more, n), few
    )


def reduced(text, e, g):
    of, is_ = (g, e) if "would be right" in text else (e, g)
    found = [getattr(of, f)() for f in ("sum", "mean") if f in text]
    found += [getattr(of, f)(a) for f in ("sum", "mean") if f in text for a in range(of.ndim)]
    return any(close(f.squeeze(), is_.squeeze()) for f in found)


OF_ARRAYS = {
    "nan": nan, "nan-some": nan_some, "constant": constant, "sign": sign, "sign-at": sign_at,
    "factor": factor, "offset": offset, "transform": transform, "axes": axes,
    "reversed": reversed_, "shifted": shifted, "order": order, "normalise": normalise,
    "row-factor": row_factor, "row-offset": row_offset, "where": where, "all-but": all_but,
    "almost": almost, "opposite": opposite, "one-sided": one_sided, "shape": shape,
    "affine": affine, "power": power, "lines": lines, "zeros": zeros, "sums": sums, "size": size,
    "broadcast": broadcast, "repeated": repeated, "length": length, "reduced": reduced,
}  # fmt: skip


def array_claim(look, expected, got):
    """Return whether what a look says of two arrays is true."""
    return bool(OF_ARRAYS[look.name](look.text, tensor(expected), tensor(got)))


def sequence_claim(look, e, g):
    """Return whether what a look says of two lists or texts is true."""
    text = look.text
    if look.name == "reversed":
        return list(g) == list(e)[::-1]
    if look.name == "order":
        return sorted(map(repr, e)) == sorted(map(repr, g))
    if look.name == "length":
        n = int(re.search(r"for (\d+)", text)[1])
        few, many = (e, g) if "too many" in text else (g, e)
        rest = many[: len(many) - n] if "at the end" in text else many[n:]
        return list(rest) == list(few)
    if look.name == "shifted":
        return list(g[1:]) == list(e[:-1]) if "late" in text else list(g[:-1]) == list(e[1:])
    if look.name == "all-but":
        wrong = [i for i, (a, b) in enumerate(zip(e, g, strict=True)) if a != b]
        return f"all but {len(wrong)} of {len(e)} " in text and wrong[:4] == [
            int(n) for n in re.findall(r"\d+", text.partition(": at ")[2])
        ]
    if look.name == "elements":
        left, missing = list(g), []
        for part in e:
            left.remove(part) if part in left else missing.append(part)
        named = [*missing[:4], *left[:4]]  # of more, only the number is told
        return all(repr(part)[:50] in text for part in named)
    texts = {
        "case": lambda: g.lower() == e.lower(),
        "blanks": lambda: g.strip() == e.strip(),
        "inside": lambda: e in g,
        "empty": lambda: len(g) == 0,
    }
    return texts[look.name]()
