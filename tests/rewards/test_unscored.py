"""When answers without a score end a run: by hand."""

import pytest

from etude.errors import UserError
from etude.rewards.unscored import TooManyUnscored, check_max_share, check_scored, commonest_reason
from etude.tasks.reward import Reward
from etude.tasks.task import Task


def asked(failed, total, reason="the verifier raised ValueError: no number"):
    answers = [(f"answer {place} " + "x" * 100, Task(f"question {place}")) for place in range(total)]
    return answers, [Reward(None, message=reason) if place < failed else Reward(-3.0) for place in range(total)]


@pytest.mark.parametrize(
    ("failed", "total", "max_share", "stops"),
    [
        (1, 8, 0.1, False),  # an odd answer
        (2, 8, 0.1, False),
        (3, 8, 0.1, True),
        (12, 128, 0.1, False),
        (13, 128, 0.1, True),
        (2, 2, 0.1, True),  # a verifier that always fails stops however few there are
        (1, 1, 0.5, True),
        (128, 128, 1.0, False),
        (0, 4, 0.0, False),
        (3, 100, 0.0, True),
    ],
)
def test_more_than_a_few_answers_without_a_score_stop(failed, total, max_share, stops):
    answers, rewards = asked(failed, total)
    if not stops:
        return check_scored(answers, rewards, max_share, "practice step 3")
    with pytest.raises(TooManyUnscored) as problem:
        check_scored(answers, rewards, max_share, "practice step 3")
    said = str(problem.value)
    assert said.startswith(f"practice step 3: {failed} of {total} answers could not be scored, and max_unscored_share is {max_share:g}; ")
    assert "most often: the verifier raised ValueError: no number, as of the answer 'answer 0 xx" in said and "x" * 61 not in said
    assert "to 'question 0': put right what scores them (a wrong answer scores 0), or raise max_unscored_share" in said
    assert isinstance(problem.value, UserError)


def test_the_example_has_the_commonest_reason_and_a_time_out_its_own_fix():
    answers, rewards = asked(4, 5, "timed out after 0.2 s")
    rewards[0] = Reward(None, message="oh")
    assert commonest_reason(rewards) == "timed out after 0.2 s"
    with pytest.raises(TooManyUnscored, match=r"as of the answer 'answer 1 .*: raise timeout_seconds, or put right what scores them"):
        check_scored(answers, rewards, 0.1, "measuring sums")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match=r"max_unscored_share must be in \[0, 1\], got"):
        check_max_share(share)
