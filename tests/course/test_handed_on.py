"""What `use` hands on is known again: a second check of it is no right answer."""

import functools
import inspect
import json

import pytest

from gpt2lib.course import Exercise, case, registry
from gpt2lib.course.checking import check, judge
from gpt2lib.course.handed import hand_on, is_handed_on


def doubled(values):
    """Return each value twice as large."""
    return [2 * v for v in values]


class Doubler:
    def __init__(self, values):
        self.values = [2 * v for v in values]


def stub(values): ...


def wrong(values):
    return [0 for _ in values]


def raises(values):
    return values[99]


def exercise(reference="doubled", **more):
    return Exercise(
        id="double",
        notebook="99",
        title="Twice as much",
        signature="my_double(values)",
        reference=f"{__name__}:{reference}",
        cases=lambda: [case([1, 2, 3]), case([5, 0])],
        hints=["-"],
        **more,
    )


@pytest.fixture
def progress(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(registry, "all_exercises", lambda: {"double": exercise()})
    return tmp_path / "progress.json"


@pytest.mark.parametrize("answer", [stub, wrong, raises, 3, lambda: []])
@pytest.mark.parametrize("adapt", [None, lambda f: lambda values: f(values)])
def test_a_second_check_is_not_right(answer, adapt):
    first = judge(exercise(adapt=adapt), answer)
    assert first.use([4]) == [8]
    second = judge(exercise(adapt=adapt), first.use)
    assert second.status == "handed on"
    assert str(second).startswith("○ double: not checked: this is the library's; run the cell with")
    assert second.use is first.use
    assert judge(exercise(adapt=adapt), second.use).status == "handed on"


def test_it_is_not_counted(progress, capsys):
    my_double = stub
    for _ in range(3):
        my_double = check("double", my_double).use
    assert not progress.exists()
    assert "✔" not in capsys.readouterr().out
    my_double = check("double", wrong).use
    my_double = check("double", my_double).use
    kept = json.loads(progress.read_text())["exercises"]["double"]
    assert kept == {"status": "wrong", "attempts": 1}


def test_a_right_answer_goes_on_unmarked(progress):
    def mine(values):
        return [v + v for v in values]

    for _ in range(2):
        result = check("double", mine)
        assert result.status == "right"
        assert result.use is mine
    assert json.loads(progress.read_text())["exercises"]["double"]["attempts"] == 2


class Holder:
    method = hand_on(doubled, "double")


PASSED_ON = {
    "another name": lambda f: f,
    "partial": functools.partial,
    "partial of partial": lambda f: functools.partial(functools.partial(f)),
    "wraps": lambda f: functools.wraps(f)(lambda *a: f(*a)),
    "cache": functools.lru_cache,
    "method": lambda f: Holder().method,
}


@pytest.mark.parametrize("way", PASSED_ON)
def test_it_is_found_when_passed_on(way):
    assert is_handed_on(PASSED_ON[way](hand_on(doubled, "double")))


def test_it_looks_like_the_librarys():
    handed = hand_on(doubled, "double")
    assert inspect.signature(handed) == inspect.signature(doubled)
    assert (handed.__name__, handed.__doc__) == (doubled.__name__, doubled.__doc__)
    assert inspect.unwrap(handed) is doubled


def test_the_library_itself_stays_unmarked():
    hand_on(doubled, "double"), hand_on(Doubler, "double")
    assert not is_handed_on(doubled)
    assert not is_handed_on(Doubler)
    assert judge(exercise(), doubled).status == "right", "a learner may hand it in knowingly"


def test_a_stub_that_calls_it_is_the_learners():
    handed = hand_on(doubled, "double")
    for knowingly in (lambda values: doubled(values), lambda values: handed(values)):
        assert judge(exercise(), knowingly).status == "right"


def test_a_class_is_handed_on_as_a_class():
    handed = judge(exercise("Doubler"), lambda values: None).use
    made = handed([1, 2])
    assert isinstance(made, Doubler)
    assert made.values == [2, 4]
    assert is_handed_on(handed)

    class Mine(handed):
        """A class of the learner's, on top of the library's."""

    assert not is_handed_on(Mine)


def test_what_wraps_itself_is_no_endless_loop():
    def odd(values):
        return values

    odd.__wrapped__ = odd
    assert not is_handed_on(odd)
