import pytest

from etude.errors import UserError
from etude.rewards.combined import CombinedReward
from etude.rewards.format import FormatReward, Gate
from etude.tasks.actions import Actions
from etude.tasks.reward import Reward
from etude.tasks.task import Task

TASK = Task("What is 2 + 3?", "5")
ACTIONS = Actions(tags={"answer": [1, 1]})


def fixed(*rewards):
    return lambda pairs: list(rewards[: len(pairs)])


def test_a_weighted_mean_by_hand():
    parts = {
        "verifier": fixed(Reward(1.0, {"parsable": 1.0}), Reward(0.0, message="got 4")),
        "judge": fixed(Reward(0.4, {"judge_disagreement": 0.1}, message="short"), Reward(0.8)),
        "format": fixed(Reward(1.0), Reward(0.0, message="no <answer>")),
    }
    first, second = CombinedReward(parts, {"verifier": 1.0, "judge": 0.5, "format": 0.1}).judge([("5", TASK), ("4", TASK)])
    assert first.score == pytest.approx((1.0 + 0.5 * 0.4 + 0.1) / 1.6) and second.score == pytest.approx(0.5 * 0.8 / 1.6)
    assert first.parts == {"parsable": 1.0, "judge_disagreement": 0.1, "verifier": 1.0, "judge": 0.4, "format": 1.0}
    assert (first.message, second.message) == ("judge: short", "verifier: got 4; format: no <answer>")


def test_full_marks_of_all_parts_are_exactly_one():
    parts = {str(place): fixed(Reward(1.0)) for place in range(7)}
    assert CombinedReward(parts, {str(place): 0.1 * (place + 1) for place in range(7)}).judge([("5", TASK)])[0].score == 1.0


def test_a_part_without_a_score_leaves_the_whole_without_one_unless_it_is_optional():
    parts = {"verifier": fixed(Reward(0.25)), "judge": fixed(Reward(None, message="gone"))}
    (strict,) = CombinedReward(parts, {"verifier": 3.0, "judge": 1.0}).judge([("5", TASK)])
    assert strict.score is None and strict.parts == {"verifier": 0.25} and strict.message == "judge: gone"
    (lenient,) = CombinedReward(parts, {"verifier": 3.0, "judge": 1.0}, ["judge"]).judge([("5", TASK)])
    assert lenient.score == 0.25
    nothing = CombinedReward({"judge": parts["judge"], "other": parts["judge"]}, None, ["judge", "other"]).judge([("5", TASK)])
    assert nothing[0].score is None


def test_step_values_come_from_the_only_part_that_has_them():
    stepped, plain = fixed(Reward(0.0, step_values=(0.5, 0.0))), fixed(Reward(1.0))
    for parts, steps in (({"a": stepped, "b": plain}, (0.5, 0.0)), ({"a": stepped, "b": stepped}, ()), ({"a": plain, "b": plain}, ())):
        assert CombinedReward(parts).judge([("5", TASK)])[0].step_values == steps


@pytest.mark.parametrize("weight", [0.1, 1.0, 7.3])
def test_a_single_part_of_any_weight_equals_that_reward(weight):
    rewards = [Reward(0.7, {"parsable": 1.0}, (0.1, 0.2), "near"), Reward(None, message="gone"), Reward(1 / 3)]
    found = CombinedReward({"judge": fixed(*rewards)}, {"judge": weight}).judge([("5", TASK)] * 3)
    for whole, alone in zip(found, rewards, strict=True):
        assert (whole.score, whole.step_values, whole.message) == (alone.score, alone.step_values, alone.message)
        assert whole.parts == alone.parts | ({} if alone.score is None else {"judge": alone.score})


@pytest.mark.parametrize(
    ("weights", "optional", "said"),
    [
        ({"verifier": 0.0}, [], "reward_weights.verifier must be above 0, got 0.0"),
        ({"verifier": float("inf")}, [], "must be above 0"),
        ({"verifier": float("nan")}, [], "must be above 0"),
        ({"verifier": 1.0}, ["judge"], "reward_optional names 'judge', which is no part of reward_weights: verifier"),
    ],
)
def test_weights_of_0_or_less_are_refused(weights, optional, said):
    with pytest.raises(UserError, match=said):
        CombinedReward({"verifier": fixed()}, weights, optional)


# ---------------------------------------------------------------------- format


def test_format_scores_1_or_the_malformed_score():
    actions = Actions(tags={"answer": [1, 1]}, malformed_score=0.2)
    well, badly = FormatReward(actions).judge([("<answer>5</answer>", TASK), ("<answer>5", TASK)])
    assert (well.score, well.message) == (1.0, "") and (badly.score, badly.message) == (0.2, "<answer> is never closed")


def test_a_gate_passes_only_well_formed_answers_on():
    asked = []

    def judge(pairs):
        asked.extend(pairs)
        return [Reward(0.5, {"judge": 0.5}) for _ in pairs]

    texts = ["5", "<answer>5</answer>", "<answer></answer>"]
    rewards = Gate(ACTIONS, judge).judge([(text, TASK) for text in texts])
    assert [reward.score for reward in rewards] == [0.0, 0.5, 0.0] and asked == [(texts[1], TASK)]
    malformed = {"parsable": 0.0, "format": 0.0}
    assert [reward.parts for reward in rewards] == [malformed, {"parsable": 1.0, "judge": 0.5, "format": 1.0}, malformed]
    assert rewards[2].message == "<answer> is empty"
    (unparsable,) = Gate(ACTIONS, fixed(Reward(0.0, {"parsable": 0.0}))).judge([(texts[1], TASK)])
    assert unparsable.parts == {"parsable": 0.0, "format": 1.0}


def test_a_gate_without_actions_passes_everything_on():
    rewards = Gate(Actions(), fixed(Reward(0.5), Reward(None, message="gone"))).judge([("5", TASK), ("<answer>", TASK)])
    assert [(reward.score, reward.message) for reward in rewards] == [(0.5, ""), (None, "gone")]


# ---------------------------------------------------------------------- any range


def test_a_combined_reward_is_right_only_if_every_part_is():
    verifier = fixed(*(Reward(score, right_at=15.0) for score in (-5.0, 14.0, 15.0, 30.0, 30.0)))
    judge = fixed(*(Reward(score) for score in (1.0, 1.0, 1.0, 1.0, 0.9)))
    found = CombinedReward({"verifier": verifier, "judge": judge}, {"verifier": 0.5, "judge": 1.5}).judge([("5", TASK)] * 5)
    assert [reward.score for reward in found] == [
        (0.5 * one + 1.5 * other) / 2 for one, other in zip((-5, 14, 15, 30, 30), (1, 1, 1, 1, 0.9), strict=True)
    ]
    assert [reward.is_right for reward in found] == [False, False, True, True, False]  # the last one's 30 makes up for nothing


def test_a_gate_refuses_a_reward_below_that_of_a_malformed_answer():
    behind = fixed(Reward(-2.0))
    well_formed = [("<answer>5</answer>", TASK)]
    with pytest.raises(UserError, match=r"malformed_score is 0, but a well-formed answer scored -2: set it to the least"):
        Gate(ACTIONS, behind).judge(well_formed)
    (reward,) = Gate(Actions(tags={"answer": [1, 1]}, malformed_score=-5.0), behind).judge(well_formed)
    assert reward.score == -2.0 and not reward.is_right
    (malformed,) = Gate(Actions(tags={"answer": [1, 1]}, malformed_score=-5.0), behind).judge([("5", TASK)])
    assert malformed.score == -5.0
