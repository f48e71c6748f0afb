"""Lines from the verifiers' process, read by hand."""

import json

import pytest

from etude.rewards.reply import LONGEST_MESSAGE, BadReply, read_line, read_reply
from etude.tasks.reward import Reward

WHOLE = {"score": 0.5, "parts": {"parsable": 1.0}, "step_values": [0.25, 1], "message": "near", "words": "colder", "right_at": 0.5}


def line(number=3, **fields):
    return json.dumps({"id": number, "rewards": [WHOLE | fields]}).encode()


def test_a_whole_reward_is_read_as_it_was_given():
    assert read_reply(line(), 3) == ([Reward(0.5, {"parsable": 1.0}, (0.25, 1), "near", "colder", right_at=0.5)], 0)
    assert read_reply(line(score=None), 3)[0][0].score is None


def test_a_verifiers_exception_is_unscored_and_counts_as_a_failure():
    assert read_reply(b'{"id": 3, "error": "KeyError: 1"}', 3) == ([Reward(None, message="the verifier raised KeyError: 1")], 1)
    assert read_reply(b'{"id": 3, "error": "KeyError: 1"}', 3, 2)[1] == 2


@pytest.mark.parametrize("rewards", [[WHOLE], [WHOLE] * 3, None, WHOLE])
def test_every_text_of_an_item_has_a_reward_or_all_are_unscored(rewards):
    found, failed = read_reply(json.dumps({"id": 3, "rewards": rewards}).encode(), 3, 2)
    assert [reward.score for reward in found] == [None, None] and failed == 2


def test_a_malformed_reward_costs_only_its_own_score():
    found, failed = read_reply(json.dumps({"id": 3, "rewards": [WHOLE, {}]}).encode(), 3, 2)
    assert [reward.score for reward in found] == [0.5, None] and failed == 1


@pytest.mark.parametrize("text", [b"", b"x", b"[]", b"3", b"null", b"[" * 100_000, b'{"id": ' + b"9" * 5_000 + b"}", b"\xff"])
def test_a_reply_must_be_a_json_object(text):
    with pytest.raises(BadReply):
        read_line(text)


@pytest.mark.parametrize("number", [2, 4, None, "3", 3.0, True, [3]])
def test_a_reply_must_have_the_requested_id(number):
    with pytest.raises(BadReply):
        read_reply(line(number), 3)
    with pytest.raises(BadReply):
        read_reply(line(True), 1)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", ["absent", "x", 10**400, float("nan"), float("-inf"), [[0.5]], {"a": "b"}, {"a": float("nan")}, 7, True])
def test_a_reward_of_another_form_costs_its_score_and_names_the_field(name, value):
    found = {key: given for key, given in (WHOLE | {name: value}).items() if key != name or value != "absent"}
    (reward,), has_failed = read_reply(json.dumps({"id": 3, "rewards": [found]}).encode(), 3)
    is_well = (name in ("score", "right_at") and value in (7, True)) or (name in ("message", "words") and value == "x")
    assert bool(has_failed) is not is_well
    assert is_well or (reward.score is None and reward.message.startswith("the verifier's reward can't be read: "))


@pytest.mark.parametrize("fields", [{"parts": {"a" * 201: 1.0}}, {"parts": dict.fromkeys(map(str, range(5_000)), 1.0)}])
def test_a_reward_has_so_many_numbers_and_names_of_such_a_length(fields):
    assert read_reply(line(**fields), 3)[1]


def test_texts_are_cut():
    (reward,), _ = read_reply(line(message="x" * 5_000, words="y" * LONGEST_MESSAGE), 3)
    assert (reward.message, reward.words) == ("x" * 4_093 + "...", "y" * 4_096)
    assert len(read_reply(json.dumps({"id": 3, "error": "z" * 10_000}).encode(), 3)[0][0].message) == 4_096
