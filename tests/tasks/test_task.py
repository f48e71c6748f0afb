import pytest

from etude.tasks import Task


def chat(*turns):
    return Task(tuple({"role": role, "content": content} for role, content in turns))


SAME = [
    ("What is 2 + 2?", "what is  2+2 ?"),
    ("-5", "- 5"),
    ("Tom\u2019s \u201cbox\u201d", 'Tom\'s "box"'),
    ("caf\u00e9", "cafe\u0301"),
    ("\uff12 + \uff12", "2 + 2"),
    ("3 \u2212 1", "3 - 1"),
    ("1\u00a0000", "1 000"),
    ("STRASSE", "stra\u00dfe"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_key_forgives_case_spacing_and_unicode_form(one, other):
    assert Task(one).key == Task(other).key


DIFFERENT = [
    ("2 + 2", "2 - 2"),
    ("1.5", "15"),
    ("12", "1 2"),
    ("[[1, 2], [3]]", "[[1], [2, 3]]"),
    ("# . #", "# #"),
    ("What is 5\u00b2?", "What is 52?"),
    ("3\u00bd", "31/2"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_the_key_tells_questions_apart_by_numbers_and_punctuation(one, other):
    assert Task(one).key != Task(other).key


def test_the_key_leaves_the_system_message_out_and_no_other():
    plain = Task("What is 2 + 2?").key
    assert chat(("system", "Be brief."), ("user", "What is 2 + 2?")).key == plain
    assert chat(("user", "What is 2 + 2?")).key == plain
    assert chat(("user", "Hello"), ("assistant", "Yes?"), ("user", "What is 2 + 2?")).key != plain
