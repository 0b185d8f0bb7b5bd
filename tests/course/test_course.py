"""The course engine: verdicts, diagnoses, sources, progress, figures."""

import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import gpt2lib.course as course
from gpt2lib.course import CheckResult, Exercise, Misconception, case, plots, registry, scores
from gpt2lib.course.checking import check, judge
from gpt2lib.course.comparing import first_difference
from gpt2lib.course.exercise import lazy
from gpt2lib.course.session import budget, expect_error, setup
from gpt2lib.course.sources import listing_of, resolve, show_source
from gpt2lib.course.stubs import is_untouched
from gpt2lib.utils.errors import UserError


def doubled(values):
    """The reference of the exercise below."""
    return [2 * v for v in values]


def my_double(values):
    return [v + v for v in values]


def ones_in_place(tensor):
    tensor.fill_(1.0)


EXERCISE = Exercise(
    id="double",
    notebook="99",
    title="Twice as much",
    signature="my_double(values)",
    reference=f"{__name__}:doubled",
    cases=lambda: [case([1, 2, 3]), case([5, 0])],
    hints=["first", "second"],
    misconceptions=[
        Misconception(
            "squares",
            lambda seen: f"value {seen.index[0]} is squared: {seen.got[seen.index[0]]}",
            wrong=lambda values: [v * v for v in values],
        ),
        Misconception(
            "remembers",
            "the second call with the same values differs",
            test=lambda f: f([1]) != f([1]),
        ),
    ],
)


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Record to a file of the test, and know one exercise only."""
    monkeypatch.setenv("GPT2LIB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(registry, "all_exercises", lambda: {"double": EXERCISE})
    return tmp_path / "progress.json"


def untouched_dots(values): ...


def untouched_docstring(values):
    """Do it."""


def untouched_raise(values):
    raise NotImplementedError("your turn")


def untouched_none(values):
    return None


def untouched_scaffold(values):
    result = ...  # your code here
    return result


def untouched_half(values):
    doubled_values = ...
    return doubled_values[0]


STUBS = [
    untouched_dots,
    untouched_docstring,
    untouched_raise,
    untouched_none,
    untouched_scaffold,
    untouched_half,
    lambda values: NotImplemented,
]


@pytest.mark.parametrize("stub", STUBS, ids=lambda f: f.__name__)
def test_untouched_stub_goes_on_with_the_library(stub):
    result = judge(EXERCISE, stub)
    assert result.status == "not attempted"
    assert "not attempted yet" in str(result)
    assert result.use([4]) == [8]


def test_forgotten_return_is_named():
    def answer(values):
        [2 * v for v in values]

    assert "a `return` is missing" in judge(EXERCISE, answer).diagnosis


def test_stub_detection_is_static():
    assert all(is_untouched(f) for f in STUBS[:4])
    for written in (doubled, lambda values: 0, lambda values: "x", lambda values: values, len):
        assert not is_untouched(written)


def test_right_answer_is_used():
    def answer(values):
        return tuple(v + v for v in values)

    result = judge(EXERCISE, answer)
    assert (result.status, result.diagnosis, result.use) == ("right", "", answer)


def test_known_misconception_is_diagnosed_with_values():
    result = judge(EXERCISE, lambda values: [v**2 for v in values])
    assert (result.status, result.misconception) == ("wrong", "squares")
    assert result.diagnosis == "value 0 is squared: 1"
    assert result.use([4]) == [8]


def test_a_variant_must_match_on_every_case():
    def squares_sometimes(values):
        return [v * v for v in values] if len(values) == 3 else [0]

    assert judge(EXERCISE, squares_sometimes).misconception is None


def test_property_is_checked_even_if_outputs_agree():
    calls = []

    def answer(values):
        calls.append(0)
        return [2 * v for v in values] + [9] * (len(calls) == 3)

    result = judge(EXERCISE, answer)
    assert (result.status, result.misconception) == ("wrong", "remembers")


def test_unforeseen_answer_shows_everything_and_guesses_nothing():
    result = judge(EXERCISE, lambda values: [*doubled(values)[:-1], 7])
    assert (result.status, result.misconception) == ("wrong", None)
    assert "first difference at index 2: expected 6, got 7" in result.diagnosis
    for line in ("input:    values=[1, 2, 3]", "expected: [2, 4, 6]", "got:      [2, 4, 7]"):
        assert line in result.diagnosis


def test_changed_input_is_diagnosed():
    def answer(values):
        for i in range(len(values)):
            values[i] *= 2
        return values

    result = judge(EXERCISE, answer)
    assert (result.status, result.misconception) == ("wrong", "changes-its-input")
    assert "changes its argument values;" in result.diagnosis


def test_exception_is_one_line_with_the_line_of_the_stub():
    def answer(values):
        values = list(values)
        return values[99]

    result = judge(EXERCISE, answer)
    assert result.status == "error"
    where = "in line 3 of answer: `return values[99]` (called with values=[1, 2, 3])"
    assert result.diagnosis == f"IndexError: list index out of range, {where}"
    assert "\n" not in result.diagnosis


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no text")


def raiser(error):
    def answer(values):
        raise error

    return answer


@pytest.mark.parametrize("error", [SystemExit(3), Unprintable(), GeneratorExit()])
def test_nothing_in_an_answer_stops_the_notebook(error, answers, capsys):
    result = check("double", raiser(error))
    assert result.status == "error"
    assert type(error).__name__ in capsys.readouterr().out


def test_keyboard_interrupt_does_stop():
    with pytest.raises(KeyboardInterrupt):
        judge(EXERCISE, raiser(KeyboardInterrupt()))


def test_an_object_that_cannot_be_compared_does_not_stop_the_notebook():
    class Odd(list):
        def __len__(self):
            raise RuntimeError("odd")

        __repr__ = __len__

    result = judge(EXERCISE, lambda values: Odd([2, 4, 6]))
    assert result.status == "error"
    assert "odd" in result.diagnosis


def test_wrong_parameters_name_the_signature():
    result = judge(EXERCISE, lambda: [2])
    assert result.status == "error"
    assert "my_double(values)" in result.diagnosis


def test_a_result_instead_of_a_function():
    assert "the function itself" in judge(EXERCISE, doubled([1])).diagnosis


def test_unknown_id_is_one_line_with_the_nearest(answers, capsys):
    result = check("doubel", doubled)
    assert result.status == "error"
    assert result.use is doubled
    said = capsys.readouterr().out
    assert "did you mean 'double'?" in said
    assert said.count("\n") == 1
    for helper in (course.hint, course.solution):
        helper("doubel")
        assert "did you mean 'double'?" in capsys.readouterr().out


def test_random_answers_see_the_same_seed_and_leave_the_notebooks_alone():
    exercise = Exercise(
        id="noise",
        notebook="99",
        title="",
        signature="my_noise(n)",
        reference="torch:randn",
        cases=lambda: [case(4)],
        hints=["-"],
    )
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    assert judge(exercise, lambda n: torch.empty(n).normal_()).status == "right"
    assert torch.equal(torch.rand(1), wanted)


def test_in_place_exercises_compare_the_argument():
    exercise = Exercise(
        id="fill",
        notebook="99",
        title="",
        signature="my_fill(tensor)",
        reference=f"{__name__}:ones_in_place",
        cases=lambda: [case(torch.zeros(2, 2))],
        hints=["-"],
        inplace=True,
    )
    assert judge(exercise, lambda t: t.add_(1)).status == "right"
    assert judge(exercise, untouched_dots).status == "not attempted"
    wrong = judge(exercise, lambda t: t + 1)
    assert wrong.status == "wrong"
    assert "4 of 4 values differ" in wrong.diagnosis


def test_a_broken_reference_is_not_blamed_on_the_learner():
    from dataclasses import replace

    result = judge(replace(EXERCISE, reference="gpt2lib.nowhere:f"), doubled)
    assert result.status == "error"
    assert "not your answer" in result.diagnosis


ONES = torch.ones(2, 3)
DIFFERENCES = [
    (ONES, torch.ones(3, 2), "expected shape (2, 3), got (3, 2)"),
    (ONES, (2 * ONES).tolist(), "6 of 6 values differ, first at index (0, 0): expected 1, got 2"),
    (ONES, "ones", "expected a tensor of shape (2, 3), torch.float32, got a str"),
    (ONES, [[1.0, 1.0], [1.0]], "expected a tensor of shape (2, 3), torch.float32, got a list"),
    (ONES.bool(), ONES, "expected dtype torch.bool, got torch.float32"),
    (ONES, ONES.bool(), "expected dtype torch.float32, got torch.bool"),
    (ONES, ONES - torch.eye(2, 3), "2 of 6 values differ, first at index (0, 0)"),
    (torch.tensor([True]), torch.tensor([False]), "expected True, got False"),
    (ONES.bfloat16(), 2 * ONES.bfloat16(), "expected 1, got 2"),
    (1.5, torch.tensor([1.5]), "expected a float, got a tensor of shape (1,)"),
    (1.5, torch.tensor(1.6), "expected 1.5, got 1.6"),
    (1.5, 1.6, "expected 1.5, got 1.6"),
    (10**9, 10**9 + 1.0, "got 1000000001.0"),
    (True, 1, "expected a bool, got an int"),
    ([1, 2], [1], "expected length 2, got 1"),
    ([1, [2, 3]], [1, [2, 4]], "at index 1, first difference at index 1: expected 3"),
    ("abc", "abd", "at index 2: expected 'c', got 'd'"),
    (b"ab", "ab", "expected a bytes, got a str"),
    ({"a": 1}, {}, "key 'a' is missing"),
    ({}, {"b": 1}, "key 'b' should not be there"),
    (None, 0, "expected None, got an int"),
]


@pytest.mark.parametrize(("expected", "got", "text"), DIFFERENCES)
def test_differences_are_said(expected, got, text):
    assert text in first_difference(expected, got).text


SAME = [
    (2, 2.0),
    (2.0, 2),
    ((1, 2), [1, 2]),
    (math.nan, math.nan),
    (1.0, np.float32(1)),
    (True, np.bool_(True)),
    (ONES, ONES.clone()),
    (ONES, ONES.double()),
    (ONES, ONES.int()),
    (ONES, ONES.numpy()),
    (ONES.numpy(), ONES),
    (ONES, ONES.tolist()),
    (ONES, list(ONES)),
    (1.5, torch.tensor(1.5)),
    (3, np.int64(3)),
    ([0, 1, 2], range(3)),
    ([0, 1, 2], torch.arange(3)),
    ([0, 1, 2], np.arange(3)),
    ((ONES, 2), [ONES.numpy(), np.float64(2)]),
    (b"ab", bytearray(b"ab")),
    ({1, 2}, frozenset((1, 2))),
]
ANOTHER_TYPE = [pair for pair in SAME if isinstance(pair[0], torch.Tensor)][1:]


@pytest.mark.parametrize(("expected", "got"), SAME)
def test_equal_in_any_sensible_type(expected, got):
    assert first_difference(expected, got) is None


@pytest.mark.parametrize(("expected", "got"), ANOTHER_TYPE)
def test_a_strict_exercise_asks_for_the_type(expected, got):
    assert "expected" in first_difference(expected, got, strict=True).text


def test_modules_are_compared_by_parameters():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert "at key 'weight'" in first_difference(one, other).text
    other.load_state_dict(one.state_dict())
    assert first_difference(one, other) is None


def test_result_reads_without_colour():
    for status, word in [("right", "right"), ("not attempted", "not attempted yet")]:
        result = CheckResult("double", status, "a <b>")
        assert word in str(result)
        assert word in result._repr_html_()
        assert "a &lt;b&gt;" in result._repr_html_()


def test_hints_progress_and_solution(answers, capsys, monkeypatch):
    monkeypatch.setattr(registry, "_hints_shown", {})
    monkeypatch.setattr(registry, "answer", lambda exercise: my_double)
    for text in ("Hint 1 of 2: first", "Hint 2 of 2: second", "Hint 2 of 2: second"):
        course.hint("double")
        assert text in capsys.readouterr().out
    course.solution("double")
    said = capsys.readouterr().out
    assert said.index("return [v + v for v in values]") < said.index(
        "return [2 * v for v in values]"
    )


def test_listing_is_cheap_and_complete():
    code = (
        "import sys; from gpt2lib.course import listing; rows = listing();"
        "print(len(rows), set(rows[0]), 'torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, *_, torch_loaded, plots_loaded = out.stdout.split()
    assert int(count) >= 1
    assert (torch_loaded, plots_loaded) == ("False", "False")
    assert all(name in out.stdout for name in ("'id'", "'notebook'", "'signature'"))


def test_lazy_module():
    assert lazy("math").pi == math.pi


def test_progress_counts_what_was_right_once(answers, capsys):
    check("double", untouched_dots)
    assert not answers.exists()
    check("double", lambda values: [0])
    assert json.loads(answers.read_text())["exercises"]["double"]["status"] == "wrong"
    check("double", doubled)
    check("double", lambda values: [0])
    kept = json.loads(answers.read_text())["exercises"]["double"]
    assert kept == {"status": "right", "attempts": 3}


def test_progress_table_and_next(answers, capsys, monkeypatch):
    monkeypatch.setattr(scores, "NOTEBOOKS", {"98": "Empty", "99": "Doubling"})
    course.progress()
    said = capsys.readouterr().out
    assert "0 of 1 exercises done." in said
    assert 'Next: notebook 99, "double": Twice as much.' in said
    assert "Empty" not in said
    check("double", doubled)
    course.progress()
    said = capsys.readouterr().out
    assert "██████████ 1 of 1" in said
    assert "All done." in said


@pytest.mark.parametrize("text", ["{", "[]", '{"exercises": {"double": 3}}', "\x00", '{"a": 1}'])
def test_damaged_progress_is_kept_aside(answers, capsys, text):
    answers.write_text(text)
    check("double", doubled)
    assert capsys.readouterr().out.count("is damaged; it is kept as") == 1
    assert answers.with_name("progress.json.damaged-1").read_text() == text
    assert scores.load() == {"double": {"status": "right", "attempts": 1}}


def test_nothing_is_recorded_outside_a_notebook_or_when_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ("", "off"):
        monkeypatch.setenv("GPT2LIB_PROGRESS", value)
        scores.record(CheckResult("double", "right"))
    assert list(tmp_path.iterdir()) == []


def test_budget_reads_the_variable(monkeypatch):
    for value, wanted in [("1", 2), ("0", 1), ("", 1)]:
        monkeypatch.setenv("GPT2LIB_FAST", value)
        assert budget(full=1, fast=2) == wanted
    monkeypatch.delenv("GPT2LIB_FAST")
    assert budget(full=1, fast=2) == 1


def test_setup_fixes_the_seeds(monkeypatch):
    drawn = []
    for _ in range(2):
        setup()
        drawn.append((torch.rand(1).item(), float(np.random.rand())))
    assert drawn[0] == drawn[1]
    torch.set_printoptions(profile="default")


def test_expect_error(capsys):
    with expect_error(UserError, match="both"):
        raise UserError("names\n both numbers")
    assert capsys.readouterr().out == "UserError: names both numbers\n"
    with pytest.raises(AssertionError, match="nothing was raised"), expect_error(UserError):
        pass
    with pytest.raises(AssertionError, match="expected a message"), expect_error(KeyError, "b"):
        raise KeyError("a")
    with pytest.raises(ZeroDivisionError), expect_error(KeyError):
        raise ZeroDivisionError


def test_sources_have_code_link_and_hash():
    shown = listing_of(UserError)
    assert shown.path == "gpt2lib.utils.errors:UserError"
    assert resolve(shown.path) is UserError
    first = int(shown.link.partition("#L")[2].partition("-")[0])
    text = (resolve("gpt2lib.course.sources").PACKAGE / "utils" / "errors.py").read_text(
        encoding="utf-8"
    )
    assert text.splitlines()[first - 1].startswith("class UserError")
    assert f"../gpt2lib/utils/errors.py#L{first}-L" in shown.link
    assert shown.code in text
    assert shown.sha256 == hashlib.sha256(shown.code.encode()).hexdigest()
    assert "```python\nclass UserError" in shown.markdown


def test_source_links_jump_in_jupyterlab_which_counts_lines_from_zero(monkeypatch):
    shown = listing_of(UserError)
    first = int(shown.link.partition("#L")[2].partition("-")[0])
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert shown.live == shown.markdown
    monkeypatch.setenv("JPY_SESSION_NAME", "my-notebooks/00_start_here.ipynb")
    assert f"(../gpt2lib/utils/errors.py#line={first - 1})" in shown.live
    assert "#L" not in shown.live
    assert "#L" in shown.markdown, "what is committed is read on GitHub"


def test_sources_of_some_methods_and_without_docstrings():
    shown = listing_of(CheckResult, only=["__str__"])
    assert "def __str__" in shown.code
    assert "def show" not in shown.code
    assert shown.code.startswith("@dataclass(frozen=True)\nclass CheckResult:\n")
    from gpt2lib.training.live_bytes import LiveBytes

    shown = listing_of(LiveBytes, only=["now"], docstrings=False)  # a comment ends its first line
    assert shown.code.startswith("class LiveBytes(TorchDispatchMode):  #")
    compile(shown.code, "shown", "exec")
    bare = listing_of(setup, docstrings=False).code
    assert "Prepare a notebook" not in bare
    assert "random.seed(seed)" in bare
    compile(bare, "bare", "exec")
    with pytest.raises(UserError, match="did you mean 'show'"):
        show_source(CheckResult, only=["shw"])


def test_figures_need_alt_text_and_are_written_only_when_asked(tmp_path, monkeypatch, capsys):
    plots.style()
    monkeypatch.setenv("GPT2LIB_FIGURES", str(tmp_path / "figures"))
    for name, alt in [("a", "too short"), ("A b", "This is long enough to help.")]:
        with pytest.raises(UserError):
            plots.show(plots.heatmap([[1.0, 0.0]]), name, alt)
    alt = "One row of two values, one and minus infinity."
    written = []
    for _ in range(2):
        plots.show(plots.heatmap([[1.0, -math.inf]], unit="weight"), "one-row", alt)
        written.append((tmp_path / "figures" / "one-row.png").read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith(b"\x89PNG")
    assert len(written[0]) < 60_000
    assert capsys.readouterr().out == f"Figure one-row: {alt}\n" * 2
    monkeypatch.delenv("GPT2LIB_FIGURES")
    plots.show(plots.heatmap(torch.eye(2)), "other", alt)
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["one-row.png"]


def test_loss_curve_reads_metrics_and_leaves_out_a_half_line(tmp_path):
    lines = [{"step": 1, "loss": 4.0}, {"step": 1, "val_loss": 3.9, "val_bits_per_byte": 2.1}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2, "lo'
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert plots.read_metrics(tmp_path) == lines
    axes = plots.loss_curve({"run": tmp_path}).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[4.0], [4.0], [3.9]]  # smoothed
    axes = plots.loss_curve(tmp_path, bits_per_byte=True).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.1]]
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        plots.loss_curve(tmp_path / "none")
