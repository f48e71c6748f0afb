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


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (Steps("line"), ["\n\nfirst\n", "second \n", "\nlast"]),  # empty ones end none
        (Steps("sentence", max_tokens=99), ["He has 3.5 dogs.", ' "Two?', '" No!', " 1. One\n", 'All "so.', '" Then']),
        (Steps("tag", tags=["plan", "solve"], max_tokens=99), ["<plan>a</plan>", "\n<solve>b</solve>", "c</b>"]),
        (Steps("tokens", max_tokens=3), ["abc", "def", "gh"]),
        (Steps("line", max_tokens=4), ["abcd", "ef\n", "gh"]),
    ],
)
def test_steps_end_with_a_line_a_sentence_or_a_tag_and_where_they_have_so_many_tokens(steps, expected):
    assert pieces(steps, "".join(expected)) == expected


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
