"""Right answers in another type are right, and the notebook goes on with the type it expects."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from gpt2lib.course import Exercise, case
from gpt2lib.course.alike import going_on, like
from gpt2lib.course.checking import judge

ONES = torch.ones(2, 3)


def kinds(value):
    """Return the types inside, so that two values of the same types give the same."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return type(value).__name__, str(value.dtype), tuple(value.shape)
    if isinstance(value, list | tuple):
        return [kinds(part) for part in value]
    if isinstance(value, dict):
        return {key: kinds(part) for key, part in value.items()}
    return "number" if isinstance(value, int | float) else type(value).__name__


OTHERS = [
    (ONES, ONES.double()),
    (ONES, ONES.int()),
    (ONES, ONES.numpy()),
    (ONES, ONES.tolist()),
    (ONES, list(ONES)),
    (ONES, np.ones((2, 3), "float64")),
    (torch.tensor(2), 2),
    (ONES.bfloat16(), ONES),
    (ONES.numpy(), ONES),
    (1.5, torch.tensor(1.5)),
    (1.5, np.float32(1.5)),
    (3, torch.tensor(3)),
    (True, np.bool_(True)),
    ([0, 1], range(2)),
    ([0, 1], torch.arange(2)),
    ((ONES, 2.0), (ONES.double(), np.float64(2))),
    ((ONES, ONES), torch.ones(2, 2, 3)),
    ({"a": ONES}, {"a": ONES.numpy()}),
]


@pytest.mark.parametrize(("template", "value"), OTHERS)
def test_values_are_converted(template, value):
    assert kinds(like(template, value)) == kinds(template)


SAME = [
    (ONES, 2 * ONES),
    (1.5, 2),
    (2, 2.5),
    ([1, 2], (1, 2)),
    ((ONES, 1), [ONES, 2]),
    ({"a": 1}, {"a": 2}),
    ("a", "b"),
    (None, 3),
]


@pytest.mark.parametrize(("template", "value"), SAME)
def test_what_fits_is_the_same_object(template, value):
    assert like(template, value) is value
    assert going_on(len, template, value) == (len, "")


def test_a_gradient_goes_through():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    like(torch.ones(2), x).sum().backward()
    assert x.grad.tolist() == [1, 1]


def softmax(x):
    return x.softmax(-1)


def exercise(**more):
    return Exercise(
        id="softmax",
        notebook="99",
        title="",
        signature="my_softmax(x)",
        reference=f"{__name__}:softmax",
        cases=lambda: [case(torch.tensor([1.0, 2.0])), case(torch.tensor([0.0, 0.0, 3.0]))],
        hints=["-"],
        **more,
    )


def in_lists(x):
    e = [2.718281828**v for v in x.tolist()]
    return [v / sum(e) for v in e]


def test_the_notebook_goes_on_in_the_librarys_type():
    result = judge(exercise(), in_lists)
    assert str(result) == (
        "✔ softmax: right: your result, a list, goes on as a tensor of shape (2,), torch.float32"
    )
    made = result.use(torch.tensor([[1.0, 2.0, 3.0]])[0])
    torch.testing.assert_close(made, torch.tensor([1.0, 2.0, 3.0]).softmax(-1))
    assert judge(exercise(), result.use).status == "right", "it is still the learner's"


def test_a_strict_exercise_does_not_take_it():
    result = judge(exercise(strict_type=True), in_lists)
    assert (result.status, result.look) == ("wrong", "type")
    assert "the values are right, but it is a list where a tensor" in result.diagnosis


def test_a_diagnosis_can_point_into_a_list():
    from gpt2lib.course import Misconception

    known = Misconception(
        "double", lambda s: f"{s.got[s.index]:.2f}", wrong=lambda x: 2 * softmax(x)
    )
    result = judge(exercise(misconceptions=[known]), lambda x: [2 * v for v in in_lists(x)])
    assert (result.misconception, result.diagnosis) == ("double", "0.54")


def test_a_number_of_the_wrong_shape_is_not_taken():
    assert judge(exercise(), lambda x: softmax(x)[None]).status == "wrong"


def test_prints_say_for_which_call(capsys):
    def my_softmax(x):
        print("scores", len(x))
        print("end", end="")
        return softmax(x)

    assert judge(exercise(), my_softmax).status == "right"
    assert capsys.readouterr().out == (
        "printed by your function on case 1:\nscores 2\nend\n"
        "printed by your function on case 2:\nscores 3\nend\n"
    )


def test_endless_prints_are_cut(capsys):
    def my_softmax(x):
        for i in range(1000):
            print(i)
        return softmax(x)

    judge(exercise(), my_softmax)
    said = capsys.readouterr().out.splitlines()
    assert said[41] == "… and 960 more lines"
    assert len(said) == 2 * 42


def test_what_the_check_itself_tries_prints_nothing(capsys):
    from gpt2lib.course import Misconception

    tries = Misconception("any", "never", test=lambda f: f(torch.ones(5)) is None)

    def my_softmax(x):
        if len(x) == 5:
            print("tried")
        return softmax(x)

    assert judge(exercise(misconceptions=[tries]), my_softmax).status == "right"
    assert capsys.readouterr().out == ""


class _Mix:
    pass


def _helper(x):
    return x


READABLE = [
    (torch.eye(2), "[[1.0, 0.0], [0.0, 1.0]]"),
    ((torch.ones(2), 3), "([1.0, 1.0], 3)"),
    ((torch.ones(1),), "([1.0],)"),
    ({"a": torch.zeros(2)}, "{'a': [0.0, 0.0]}"),
    ([torch.zeros(50)], "[a tensor of shape (50,), torch.float32, beginning [0.0, 0.0, 0.0, 0.0,"),
    (torch.nn.Linear(2, 3), "a module Linear of 9 parameters"),
    (torch.optim.AdamW([torch.ones(1)]), "an AdamW"),
    (lambda x: x, "a function"),
    (_helper, "the function helper"),
    (_Mix(), "a Mix"),
    (_Mix, "the class _Mix"),
    (Sequence, "the class Sequence"),
    (range(3), "range(0, 3)"),
    (b"\xff", r"b'\xff'"),
    (None, "None"),
]


@pytest.mark.parametrize(("value", "text"), READABLE)
def test_values_are_readable(value, text):
    from gpt2lib.course.readable import brief

    assert brief(value).startswith(text)
    assert len(brief(value)) <= 300


def test_settings_and_files_are_readable():
    from pathlib import PureWindowsPath

    from gpt2lib import GPTConfig
    from gpt2lib.course.readable import brief

    assert brief(GPTConfig(n_layer=3, n_embd=24)) == "GPTConfig(n_layer=3, n_embd=24)"
    assert brief(PureWindowsPath("runs\\a.json")) == "'runs/a.json'"


def test_every_input_of_the_course_is_readable():
    from gpt2lib.course.calling import arguments_of
    from gpt2lib.course.registry import all_exercises

    for one in all_exercises().values():
        for c in one.cases():
            text = arguments_of(c, one.parameters)
            assert " at 0x" not in text, (one.id, text)
            assert "<function" not in text
            assert "tensor([" not in text
            assert len(one.parameters) >= len(c.args), one.signature
