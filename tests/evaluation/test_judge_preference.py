"""Two answers to a question, and which of them a judge prefers."""

import pytest

from etude.evaluation.judge_preference import judge_preference
from etude.llm_client.model import Reply
from etude.rewards.judge import JudgeReward, Judging
from etude.tasks.task import Task

TASKS = [Task(f"{place}?") for place in range(5)]


def judged(answer):
    """A judge that is asked of two attempts in a prompt."""
    asked = []

    def ask(conversations):
        prompts = [conversation[-1]["content"] for conversation in conversations]
        asked.extend(prompts)
        return [Reply(answer(prompt)) for prompt in prompts]

    return JudgeReward(ask, Judging(how="pairwise", model="x", url="http://localhost")).judge, asked


def test_the_share_preferred_counts_ties_half_and_leaves_out_what_is_not_given():
    compare, asked = judged(lambda prompt: f"Better: {'first' if prompt.index('good') < prompt.index('bad') else 'second'}")
    row = judge_preference(TASKS, ["bad", "bad", "good", "same", "x"], ["good", "good", "bad", " same", None], compare)
    assert (row["preferred"], row["preferred_n"], row["preferred_order"]) == ((1 + 1 + 0 + 0.5) / 4, 4, 0)
    assert row["preferred_low"] <= row["preferred"] <= row["preferred_high"] and len(asked) == 6  # both orders, equal ones never
    compare, _ = judged(lambda prompt: "Better: first")  # which prefers a place, and so nothing
    row = judge_preference(TASKS[:2], ["a", "b"], ["c", "d"], compare)
    assert (row["preferred"], row["preferred_order"]) == (0.5, 1.0)


@pytest.mark.parametrize(("after", "n", "unread"), [([None, None], 0, 0), (["c", "d"], 0, 2), (["a", "d"], 1, 1)])
def test_what_nobody_compares_is_no_number(after, n, unread):
    compare, asked = judged(lambda prompt: "I can not say")
    assert judge_preference(TASKS[:2], ["a", "b"], after, compare) == {"preferred": None, "preferred_n": n, "preferred_unread": unread}
    asked.clear()
    row = judge_preference(TASKS[:2], ["a", "b"], ["a", "b"], compare)
    assert (row["preferred"], row["preferred_n"], row["preferred_unread"], asked) == (0.5, 2, 0, []), "equal answers are a tie"
