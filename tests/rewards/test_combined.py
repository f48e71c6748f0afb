import pytest

from etude.errors import UserError
from etude.rewards.combined import CombinedFeedback
from etude.rewards.form import FormFeedback, Gate
from etude.rewards.verdict import Verdict
from etude.tasks.actions import Actions
from etude.tasks.task import Task

TASK = Task("What is 2 + 3?", "5")
ACTIONS = Actions(tags={"answer": [1, 1]})


def fixed(*verdicts):
    return lambda pairs: list(verdicts[: len(pairs)])


def test_a_weighted_mean_by_hand():
    parts = {
        "outcome": fixed(Verdict(1.0, {"parsable": 1.0}), Verdict(0.0, message="got 4")),
        "judge": fixed(Verdict(0.4, {"judge_disagreement": 0.1}, message="short"), Verdict(0.8)),
        "form": fixed(Verdict(1.0), Verdict(0.0, message="no <answer>")),
    }
    first, second = CombinedFeedback(parts, {"outcome": 1.0, "judge": 0.5, "form": 0.1}).judge([("5", TASK), ("4", TASK)])
    assert first.score == pytest.approx((1.0 + 0.5 * 0.4 + 0.1) / 1.6) and second.score == pytest.approx(0.5 * 0.8 / 1.6)
    assert first.parts == {"parsable": 1.0, "judge_disagreement": 0.1, "outcome": 1.0, "judge": 0.4, "form": 1.0}
    assert (first.message, second.message) == ("judge: short", "outcome: got 4; form: no <answer>")


def test_full_marks_of_all_parts_are_exactly_one():
    parts = {str(place): fixed(Verdict(1.0)) for place in range(7)}
    assert CombinedFeedback(parts, {str(place): 0.1 * (place + 1) for place in range(7)}).judge([("5", TASK)])[0].score == 1.0


def test_a_part_without_a_score_leaves_the_whole_without_one_unless_it_is_optional():
    parts = {"outcome": fixed(Verdict(0.25)), "judge": fixed(Verdict(None, message="gone"))}
    (strict,) = CombinedFeedback(parts, {"outcome": 3.0, "judge": 1.0}).judge([("5", TASK)])
    assert strict.score is None and strict.parts == {"outcome": 0.25} and strict.message == "judge: gone"
    (lenient,) = CombinedFeedback(parts, {"outcome": 3.0, "judge": 1.0}, ["judge"]).judge([("5", TASK)])
    assert lenient.score == 0.25
    nothing = CombinedFeedback({"judge": parts["judge"], "other": parts["judge"]}, None, ["judge", "other"]).judge([("5", TASK)])
    assert nothing[0].score is None


def test_step_values_come_from_the_only_part_that_has_them():
    stepped, plain = fixed(Verdict(0.0, step_values=(0.5, 0.0))), fixed(Verdict(1.0))
    for parts, steps in (({"a": stepped, "b": plain}, (0.5, 0.0)), ({"a": stepped, "b": stepped}, ()), ({"a": plain, "b": plain}, ())):
        assert CombinedFeedback(parts).judge([("5", TASK)])[0].step_values == steps


@pytest.mark.parametrize("weight", [0.1, 1.0, 7.3])
def test_a_single_part_of_any_weight_equals_that_reward(weight):
    verdicts = [Verdict(0.7, {"parsable": 1.0}, (0.1, 0.2), "near"), Verdict(None, message="gone"), Verdict(1 / 3)]
    found = CombinedFeedback({"judge": fixed(*verdicts)}, {"judge": weight}).judge([("5", TASK)] * 3)
    for whole, alone in zip(found, verdicts, strict=True):
        assert (whole.score, whole.step_values, whole.message) == (alone.score, alone.step_values, alone.message)
        assert whole.parts == alone.parts | ({} if alone.score is None else {"judge": alone.score})


@pytest.mark.parametrize(
    ("weights", "optional", "said"),
    [
        ({"outcome": 0.0}, [], "feedback_weights.outcome must be above 0, got 0.0"),
        ({"outcome": float("inf")}, [], "must be above 0"),
        ({"outcome": float("nan")}, [], "must be above 0"),
        ({"outcome": 1.0}, ["judge"], "feedback_optional names 'judge', which is no part of feedback_weights: outcome"),
    ],
)
def test_weights_of_0_or_less_are_refused(weights, optional, said):
    with pytest.raises(UserError, match=said):
        CombinedFeedback({"outcome": fixed()}, weights, optional)


# ---------------------------------------------------------------------- form


def test_form_scores_1_or_the_malformed_score():
    actions = Actions(tags={"answer": [1, 1]}, malformed_score=0.2)
    well, badly = FormFeedback(actions).judge([("<answer>5</answer>", TASK), ("<answer>5", TASK)])
    assert (well.score, well.message) == (1.0, "") and (badly.score, badly.message) == (0.2, "<answer> is never closed")


def test_a_gate_passes_only_well_formed_answers_on():
    asked = []

    def judge(pairs):
        asked.extend(pairs)
        return [Verdict(0.5, {"judge": 0.5}) for _ in pairs]

    texts = ["5", "<answer>5</answer>", "<answer></answer>"]
    verdicts = Gate(ACTIONS, judge).judge([(text, TASK) for text in texts])
    assert [verdict.score for verdict in verdicts] == [0.0, 0.5, 0.0] and asked == [(texts[1], TASK)]
    malformed = {"parsable": 0.0, "form": 0.0}
    assert [verdict.parts for verdict in verdicts] == [malformed, {"parsable": 1.0, "judge": 0.5, "form": 1.0}, malformed]
    assert verdicts[2].message == "<answer> is empty"
    (unparsable,) = Gate(ACTIONS, fixed(Verdict(0.0, {"parsable": 0.0}))).judge([(texts[1], TASK)])
    assert unparsable.parts == {"parsable": 0.0, "form": 1.0}


def test_a_gate_without_actions_passes_everything_on():
    verdicts = Gate(Actions(), fixed(Verdict(0.5), Verdict(None, message="gone"))).judge([("5", TASK), ("<answer>", TASK)])
    assert [(verdict.score, verdict.message) for verdict in verdicts] == [(0.5, ""), (None, "gone")]


# ---------------------------------------------------------------------- any range


def test_a_combined_reward_is_right_only_if_every_part_is():
    outcome = fixed(*(Verdict(score, right_at=15.0) for score in (-5.0, 14.0, 15.0, 30.0, 30.0)))
    judge = fixed(*(Verdict(score) for score in (1.0, 1.0, 1.0, 1.0, 0.9)))
    found = CombinedFeedback({"outcome": outcome, "judge": judge}, {"outcome": 0.5, "judge": 1.5}).judge([("5", TASK)] * 5)
    assert [verdict.score for verdict in found] == [
        (0.5 * one + 1.5 * other) / 2 for one, other in zip((-5, 14, 15, 30, 30), (1, 1, 1, 1, 0.9), strict=True)
    ]
    assert [verdict.is_right for verdict in found] == [False, False, True, True, False]  # the last one's 30 makes up for nothing


def test_a_gate_refuses_a_reward_below_that_of_a_malformed_answer():
    behind = fixed(Verdict(-2.0))
    well_formed = [("<answer>5</answer>", TASK)]
    with pytest.raises(UserError, match=r"malformed_score is 0, but a well-formed answer scored -2: set it to the least"):
        Gate(ACTIONS, behind).judge(well_formed)
    (verdict,) = Gate(Actions(tags={"answer": [1, 1]}, malformed_score=-5.0), behind).judge(well_formed)
    assert verdict.score == -2.0 and not verdict.is_right
    (malformed,) = Gate(Actions(tags={"answer": [1, 1]}, malformed_score=-5.0), behind).judge([("5", TASK)])
    assert malformed.score == -5.0
