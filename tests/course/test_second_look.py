"""The second look: a distortion of right values is named, and nothing that is said is false."""

import numpy as np
import pytest
import torch
from claims import array_claim, sequence_claim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpt2lib.course import Exercise, case
from gpt2lib.course.checking import judge
from gpt2lib.course.comparing import Tolerance
from gpt2lib.course.looks import base, numbers, order, parts, rough, rows
from gpt2lib.course.looks.base import Pair
from gpt2lib.course.second_look import second_look


def exercise(**more):
    return Exercise(
        id="any", notebook="99", title="", signature="my_any(x, n)", reference="torch:relu",
        cases=list, hints=["-"], **more,
    )  # fmt: skip


def looked(*values, wrong=None, args=(), **more):
    """Return the second look at (expected, got) of each case."""
    this = exercise(**more)
    pairs = [
        Pair(i, case(*(args[i - 1] if args else ())), e, g, bool(this.difference(e, g)))
        for i, (e, g) in enumerate(values, 1)
    ]
    return second_look(this, pairs)


ARRAY_LOOKS = (numbers.looks, order.looks, rows.looks, numbers.almost, rough.looks)


def all_looks(expected, got):
    """Return everything that is said of two arrays, not only the first."""
    e, g = np.asarray(expected), np.asarray(got)
    two = base.two_arrays(e, g, Tolerance())
    if e.shape != g.shape:
        return list(order.shapes(two.right, two.got))
    return [look for looks in ARRAY_LOOKS for look in looks(two)] if two.wrong.any() else []


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@st.composite
def arrays(draw, shapes=SHAPES, kinds="fipb"):
    """Floats, whole numbers, probabilities, truth values; often with values that repeat."""
    shape, kind = draw(shapes), draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "f":
        return torch.tensor(rng.normal(size=shape) * draw(st.sampled_from([1, 30, 0.01])))
    if kind == "i":
        return torch.tensor(rng.integers(-3, draw(st.sampled_from([4, 1000])), size=shape))
    if kind == "p":
        return torch.tensor(rng.normal(size=shape)).softmax(-1)
    return torch.tensor(rng.integers(0, 2, size=shape).astype(bool))


def permuted(x, rng):
    return x.flatten()[torch.tensor(rng.permutation(x.numel()))].view(x.shape)


def some_changed(x, rng):
    y = x.clone()
    y.view(-1)[rng.integers(x.numel())] += 3
    return y


def at_one(x, rng, value):
    y = x.clone()
    y.view(-1)[rng.integers(x.numel())] = value
    return y


def by_row(x, rng):
    return torch.tensor(rng.uniform(1.5, 4, size=(*x.shape[:-1], 1)))


def swapped(x, rng):
    i, j = rng.choice(x.ndim, 2, replace=False) if x.ndim > 1 else (0, 0)
    return x.transpose(int(i), int(j))


DISTORTIONS = {
    "sign": lambda x, rng: -x,
    "factor": lambda x, rng: x * rng.choice([2.0, 0.5, 0.7071, 8.0, -3.0, 1.4427]),
    "offset": lambda x, rng: x + rng.choice([1.0, -1.0, 0.25]),
    "axes": swapped,
    "reversed": lambda x, rng: x.flip(int(rng.integers(x.ndim))),
    "order": permuted,
    "shifted": lambda x, rng: x.roll(int(rng.choice([1, -1])), int(rng.integers(x.ndim))),
    "row-factor": lambda x, rng: x * by_row(x, rng),
    "row-offset": lambda x, rng: x + by_row(x, rng),
    "nan": lambda x, rng: at_one(x, rng, float("nan")),
    "infinite": lambda x, rng: at_one(x, rng, -float("inf")),
    "all-but": some_changed,
    "constant": lambda x, rng: torch.full_like(x, rng.normal()),
    "transform": lambda x, rng: [x.square, x.abs, x.exp, x.round, x.floor][rng.integers(5)](),
    "almost": lambda x, rng: x * torch.tensor(rng.uniform(0.99, 1.01, size=tuple(x.shape))),
    "shape": lambda x, rng: x.flatten()[:, None],
    "length": lambda x, rng: x[:-1] if rng.integers(2) else torch.cat([x, x[:1]]),
    "reduced": lambda x, rng: x.sum(-1) if rng.integers(2) else x.mean(0),
    "repeated": lambda x, rng: x[None].expand(2, *x.shape),
    "double": lambda x, rng: (x * 2).flip(0),  # two distortions: anything true may be said
}
NAMED = set(DISTORTIONS) - {"double"}
"""Distortions that must be told, by this name or by another true one."""


@settings(max_examples=150, deadline=None)
@given(arrays(kinds="fip"), st.sampled_from(sorted(DISTORTIONS)), st.integers(0, 2**32 - 1))
def test_a_distortion_is_named_and_every_sentence_is_true(x, name, seed):
    got = DISTORTIONS[name](x.double(), np.random.default_rng(seed))
    this = exercise()
    assume(this.difference(x.double(), got))
    look = looked((x.double(), got))
    for claim in all_looks(x.double(), got):
        assert array_claim(claim, x.double(), got), (claim, x, got)
    informative = x.unique().numel() > 2 and x.shape[-1] > 2 and (x.ndim == 1 or len(x) > 2)
    if name in NAMED and informative:
        assert look is not None, (name, x, got)
        assert array_claim(look, x.double(), got), (look, x, got)


@settings(max_examples=80, deadline=None)
@given(
    arrays(st.just((4, 4)), "f"), st.sampled_from(sorted(NAMED - {"infinite"})), st.integers(0, 99)
)
def test_the_plain_case_has_the_plain_name(x, name, seed):
    got = DISTORTIONS[name](x, np.random.default_rng(seed))
    assume(exercise().difference(x, got))
    same = {
        "shifted": ("shifted", "order"),
        "infinite": ("nan",),
        "order": ("order", "axes"),
        "transform": ("transform", "constant"),
    }
    assert looked((x, got)).name in same.get(name, (name,)), looked((x, got))


TRUTH = {
    "opposite": lambda m: ~m,
    "axes": lambda m: m.T,
    "shifted": lambda m: m.roll(1, 1),
    "reversed": lambda m: m.flip(0),
    "constant": torch.ones_like,
    "one-sided": lambda m: m | torch.eye(len(m), dtype=torch.bool),
    "where": lambda m: m ^ torch.eye(len(m), dtype=torch.bool),
}


@settings(max_examples=80, deadline=None)
@given(arrays(st.just((4, 4)), "b"), st.sampled_from(sorted(TRUTH)))
def test_truth_values(mask, name):
    got = TRUTH[name](mask)
    assume(not torch.equal(mask, got))
    for claim in all_looks(mask, got):
        assert array_claim(claim, mask, got), (claim, mask, got)
    assert looked((mask, got)) is not None


@settings(max_examples=150, deadline=None)
@given(arrays(), arrays(), st.booleans())
def test_nothing_false_is_said_of_unrelated_answers(x, y, same_shape):
    if same_shape:
        y = y.flatten().repeat(x.numel())[: x.numel()].view(x.shape)
    assume((x.dtype == torch.bool) == (y.dtype == torch.bool))
    for claim in all_looks(x, y):
        assert array_claim(claim, x, y), (claim, x, y)


WORDS = st.one_of(
    st.text("abC d", max_size=8),
    st.binary(max_size=8),
    st.lists(st.sampled_from(["a", "b", "wte", "wpe"]), max_size=6),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab")), max_size=6),
)
CHANGES = {
    "reversed": lambda s: s[::-1],
    "end": lambda s: s[:-1],
    "start": lambda s: s[1:],
    "too many": lambda s: s + s[:1],
    "shifted": lambda s: s[-1:] + s[:-1],
    "one": lambda s: s[:1] + s[-1:] + s[2:],
    "sorted": lambda s: type(s)(sorted(s)) if isinstance(s, bytes | list) else "".join(sorted(s)),
    "middle": lambda s: s[:2] + s[3:],
    "empty": lambda s: s[:0],
}


@settings(max_examples=150, deadline=None)
@given(WORDS, st.one_of(st.sampled_from(sorted(CHANGES)), WORDS))
def test_lists_and_texts(right, change):
    got = CHANGES[change](right) if change in list(CHANGES) else change
    assume(got != right and type(got) is type(right))
    looks = list(parts.sequences(right, got, lambda a, b: a == b))
    for look in looks:
        assert sequence_claim(look, right, got), (look, right, got)
    if change in list(CHANGES) and len(set(map(repr, right))) > 3:
        assert looks, (change, right, got)


T = torch.tensor
EXAMPLES = [
    # what one case shows
    (T([1.0, 2.0, 4.0]), T([2.0, 4.0, 8.0]), "factor", "it is 2 times the right values everywhere"),
    (T([1.0, -2.0]), T([-1.0, 2.0]), "sign", "it is right but for the sign"),
    (T([1, 5, 9]), T([2, 6, 10]), "offset", "it is 1 too large everywhere"),
    (T([[0.5, 0.5], [0.9, 0.1]]), T([[1.0, 1.0], [1.8, 0.2]]), "factor", "2 times"),
    (T([[0.5, 0.5], [0.9, 0.1]]), T([[1.0, 1.0], [2.7, 0.3]]), "normalise",
     "it is right after normalising: the rows should sum to 1, and sum to 2, …"),
    (T([[0.6, 0.8]]), T([[3.0, 4.0]]), "factor", "it is 5 times"),
    (T([1.0, 2.0, 3.0]), T([1.0, float("nan"), 3.0]), "nan",
     "it is NaN at 1, and right everywhere else"),
    (T([[1.0, 2.0], [3.0, 4.0]]), T([[1.0, 3.0], [2.0, 4.0]]), "axes", "but transposed"),
    (torch.ones(3, 3).tril().bool(), torch.ones(3, 3).tril(-1).bool(), "one-sided",
     "False where True is right at (0, 0), (1, 1), (2, 2); never the other way round"),
    (torch.ones(3, 3).tril().bool(), torch.ones(3, 3).tril(), "type",
     "the values are right, but as numbers where True and False are asked for"),
    (T([1.0, 2.0]), T([[1.0, 2.0]]), "shape", "in the shape (1, 2) for (2,)"),
    (T([[1.0, 1.0], [1.0, 1.0]]), T([1.0, 1.0]), "broadcast", "repeated to the shape (2, 2)"),
    (T(3.0), T([1.0, 2.0]), "reduced", "its sum would be right"),
    (1.5, [1.5], "type", "it is a list that holds the right value"),
    (1.5, None, "blank", "it is None"),
    ("abc", b"abc", "type", "as a bytes, not a str"),
    ("abc", "Abc", "case", "capital and small"),
    ((1, "a"), ("a", 1), "reversed", "the two parts are right, but exchanged"),
    ({"a": 1, "b": 2}, {"a": 1}, "keys", "but key 'b' is missing"),
    ({(0, 1): 5}, {(1, 0): 5}, "keys-reversed", "under keys that are reversed"),
    (["a", "b", "c", "d"], ["a", "b", "d", "x", "y"], "elements",
     "but 'c' is missing and 'x', 'y' should not be there"),
    ((T([1.0, 2.0, 3.0]), T([4.0, 5.0])), (T([1.0, 2.0, 3.0]), T([-4.0, -5.0])), "sign", "sign"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "got", "name", "text"), EXAMPLES)
def test_examples(right, got, name, text):
    look = looked((right, got))
    assert look.name == name
    assert text in look.text


def test_single_numbers_are_seen_over_all_cases():
    look = looked((1.0, 2.0), (3.0, 6.0), (5.0, 10.0))
    assert (look.name, look.text) == ("factor", "it is 2 times the right values on every case")
    look = looked((1.0, 1.0), (3.0, 3.0), (5.0, 6.0))
    assert look.text == "it is right in all but 1 of 3: at case 3: 6 for 5"
    look = looked((1.0, 2.0), (3.0, 5.5), (5.0, 11.0))
    assert look.text == "it is too large on every case, 1.833 to 2.2 times the right value"
    assert looked((1.0, 0.5), (3.0, 5.5), (5.0, 11.0)) is None
    assert (
        looked((1, 1), (3, 7), (5, 8), (6, 6)).text
        == "it is right on case 1, case 4, and wrong on case 2, case 3"
    )
    assert looked((124_439_808, 124_438_272), (250, 246), (9, 8)).name != "factor"
    assert looked((0.25, 1.0), (9.0, 6.0), (16.0, 8.0)).text == (
        "it is 2 times the right values to the power 0.5 on every case"
    )
    assert looked((1.0, 5.0), (3.0, 9.0), (4.0, 11.0)).text == (
        "it is 2 times the right values plus 3 on every case"
    )


def test_a_claim_holds_on_all_wrong_cases_or_says_on_which():
    x, y = T([1.0, 2.0, 4.0]), T([3.0, 7.0, 5.0])
    assert looked((x, -x), (y, -y)).text == "it is right but for the sign"
    assert looked((x, x), (y, -y)).text == "it is right but for the sign (case 1: right)"
    said = looked((x, 2 * x), (y, 3 * y)).text
    assert said == (
        "it is 2 times the right values everywhere (case 1; with other numbers the same on the "
        "others)"
    )
    assert looked((x, 2 * x), (y, y / 2)).text.startswith("it is 2 times")
    opposite = looked((x, x + T([1.0, 1.5, 3.0])), (y, y - T([1.0, 1.5, 3.0])))
    assert opposite.text.startswith("on case 1, it is too large everywhere"), "not the same on both"
    assert looked((x, -x), (y, y * y - 3)).text.startswith(
        "on case 1, it is right but for the sign"
    )


def test_steps_arguments_and_constants():
    x = T([[1.0, 2.0], [3.0, 5.0]])
    steps = {"before the softmax": lambda x, n: x / n}
    values = [(x.softmax(-1), x / 2), ((2 * x).softmax(-1), x)]
    assert looked(*values, args=[(x, 2), (2 * x, 2)], steps=steps).text == (
        "this is the right value before the softmax"
    )
    assert looked((2 * x, x), args=[(x, 2)]).text == "it is x, unchanged"
    assert looked((2 * x, x), args=[(x, 2)], inplace=True).text == "x is left as it was"
    assert looked((1, 7), (2, 7)).text == "it is the same on every case: 7"


def test_arguments_that_are_in_the_result():
    args = [(torch.ones(3, 2), 7), (torch.ones(5, 2), 4)]
    assert looked((1.5, 10.5), (2.0, 8.0), args=args).text == "it is the right value times n"
    x, y = T([1.0, 3.0]), T([2.0, 5.0])
    assert looked((x, x / 3), (y, y / 5), args=args).text == (
        "it is the right value divided by the size of x along axis 0"
    )
    assert looked((x, x * 2), (y, y * 2), args=args).name == "factor", "the same for all"


def test_some_parts_are_right():
    right, got = (T([1.0, 2.0]), {"a": 1}), (T([1.0, 2.0]), {3})
    assert looked((right, got)).text == "on case 1, part 0 of it is right, and part 1 is not"
    counts = {(0, 1): 6, (1, 2): 4, (2, 0): 1}
    assert looked((counts, {k: 3 * v for k, v in counts.items()})).name == "factor"
    assert looked((counts, {**counts, (2, 0): 5})).text == (
        "it is right in all but 1 of 3 keys: at (2, 0)"
    )


def test_modules_are_seen_by_their_parameters():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict({"weight": -one.weight, "bias": one.bias})
    assert looked((one, other)).text == "it is right in all but 1 of 2 keys: at 'weight'" or (
        looked((one, other)).name == "sign"
    )


def test_strict_types_are_told():
    x = T([1.0, 2.0])
    look = looked((x, x.double()), strict_type=True)
    assert look.text == (
        "the values are right, but it is a tensor of shape (2,), torch.float64 where a tensor of "
        "shape (2,), torch.float32 is asked for"
    )


def test_large_whole_numbers_are_left_alone():
    assert looked((T([2**60, 2**61, 7]), T([2**60 + 1, 2**61, 9]))) is None


def test_it_is_said_before_the_values_and_after_known_misconceptions():
    this = Exercise(
        id="relu", notebook="99", title="", signature="my_relu(x)", reference="torch:relu",
        cases=lambda: [case(T([-1.0, 2.0, 3.0, 5.0]))], hints=["-"],
    )  # fmt: skip
    result = judge(this, lambda x: -x.relu())
    assert (result.status, result.misconception, result.look) == ("wrong", None, "sign")
    first, *rest = result.diagnosis.splitlines()
    assert first.startswith("it is right but for the sign. 3 of 4 values differ, first at index 1")
    assert [line.split(":")[0].strip() for line in rest] == ["input", "expected", "got"]
    odd = judge(this, lambda x: object())
    assert odd.look is None
    assert "expected a tensor of shape (4,), torch.float32, got an object" in odd.diagnosis
