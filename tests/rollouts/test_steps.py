import pytest

from etude.errors import UserError
from etude.rollouts.steps import Steps


def pieces(steps, text):
    """The steps of a text whose tokens are its characters."""
    tokens, found, start = [ord(c) for c in text], [], 0
    for length in steps.lengths(tokens, lambda some: "".join(map(chr, some))):
        found.append(text[start : start + length])
        start += length
    assert "".join(found) == text
    return found


def test_lines_end_steps_and_empty_lines_do_not():
    assert pieces(Steps("line"), "\n\nfirst\nsecond \n\nlast") == ["\n\nfirst\n", "second \n", "\nlast"]


def test_sentences_end_with_their_full_stop_and_numbers_end_none():
    text = 'He has 3.5 dogs. "Two?" No! 1. One\nAll "so." Then'
    assert pieces(Steps("sentence", max_tokens=99), text) == ["He has 3.5 dogs.", ' "Two?', '" No!', " 1. One\n", 'All "so.', '" Then']


def test_tags_end_steps_by_their_names_alone():
    steps = Steps("tag", tags=["plan", "solve"], max_tokens=99)
    assert pieces(steps, "<plan>a</plan>\n<solve>b</solve>c</b>") == ["<plan>a</plan>", "\n<solve>b</solve>", "c</b>"]


def test_a_step_has_so_many_tokens_at_most():
    assert pieces(Steps("tokens", max_tokens=3), "abcdefgh") == ["abc", "def", "gh"]
    assert pieces(Steps("line", max_tokens=4), "abcdef\ngh") == ["abcd", "ef\n", "gh"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"end": "tag"}, "steps.tags names none"),
        ({"end": "tag", "tags": ["<plan>"]}, "steps.tags has '<plan>'"),
        ({"max_tokens": 0}, "steps.max_tokens must be at least 1, got 0"),
    ],
)
def test_what_can_not_be_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        Steps(**given)
