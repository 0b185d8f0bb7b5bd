"""What is said of wrong answers that were written without a look at the diagnoses."""

from kept_apart import ANSWERS

from gpt2lib.course.checking import judge
from gpt2lib.course.registry import find


def test_most_are_told_something_specific_and_none_is_accepted():
    told, vague = 0, []
    for id, answers in ANSWERS.items():
        assert len(answers) >= 5
        for number, answer in enumerate(answers):
            result = judge(find(id), answer)
            assert result.status in ("wrong", "error"), (id, number, result)
            if result.misconception or result.look or result.status == "error":
                told += 1
            else:
                vague.append((id, number))
            said = result.diagnosis
            assert "a tuple where a tuple" not in said and "a list where a list" not in said
    every = sum(map(len, ANSWERS.values()))
    assert len(ANSWERS) >= 20 and told >= 0.8 * every, (told, every, vague)


def test_equal_logits_are_not_blamed_where_they_are_not_the_cause():
    answers = [answer for answer in ANSWERS["top-k"][2:] if answer is not ANSWERS["top-k"][3]]
    assert all(judge(find("top-k"), f).misconception != "ties-stay" for f in answers)
