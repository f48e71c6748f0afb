"""A suite's numbers, worked out by hand on answers that are known."""

import json
from dataclasses import replace

import pytest

from etude.engine.completion import Completion
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.evaluation.measure import Measurement, Suite, measure, sampled_places
from etude.evaluation.rewards import tells_more
from etude.rewards.unscored import TooManyUnscored
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.verifiers import numeric
from etude.tasks.votes import majority

GREEDY_TEXTS = ["7", "no idea"]
SAMPLED_TEXTS = [["8", "The answer is 7.", "7"], ["1", "2", "2"]]


class Parrot:
    """An engine that says what it was told to."""

    def generate(self, prompts, *, num_samples=1, max_new_tokens, sampling, keys=None):
        texts = [[text] for text in GREEDY_TEXTS] if sampling.is_greedy else SAMPLED_TEXTS
        assert len(texts) == len(prompts) and all(len(group) == num_samples for group in texts)
        return [[Completion((5, 6), (-0.1, -0.1), text, "stop" if text[0] != "n" else "length", 0, 0) for text in group] for group in texts]


SUITE = Suite("sums", [Task("3 + 4?", "7", "numeric"), Task("0 + 1?", "1", "numeric")], [(1,), (2,)], {"most_frequent": 0.5})
HOW = Measurement(max_new_tokens=8, pass_n=2, num_samples=3, sampling=Sampling(), seed=0)


def judge(pairs):
    return [numeric(text, task) for text, task in pairs]


def test_the_numbers_of_a_suite_are_those_worked_out_by_hand():
    row = measure(Parrot(), SUITE, HOW, judge)["row"]
    assert (row["n"], row["accuracy"], row["parsable"], row["truncated"], row["unscored"]) == (2, 0.5, 0.5, 0.5, 0)
    assert row["sampled_accuracy"] == pytest.approx((2 + 1) / 6)
    assert row["pass_at_3"] == 1.0  # each task has a right sample
    assert row["pass_curve"] == {"1": pytest.approx((2 + 1) / 6), "2": pytest.approx((1 + 2 / 3) / 2)}
    assert row["majority_at_3"] == 0.5  # most say 7, rightly; most say 2, wrongly
    ends = ("", "_low", "_high")  # a verifier of 0 and 1 has the mean reward of its accuracies
    assert [row[f"mean_reward{end}"] for end in ends] == [row[f"accuracy{end}"] for end in ends]
    assert row["sampled_mean_reward"] == row["sampled_accuracy"] and row["right_at"] == 1.0 and not tells_more(row)


def test_the_tasks_to_sample_are_chosen_by_their_keys_so_that_a_sorted_file_is_not_cut_at_its_easy_end(llama, tokenizer):
    tasks = [Task(f"{number} + 1?", str(number + 1), "numeric") for number in range(40)]
    places = sampled_places(tasks, 10)
    assert len(places) == 10 and places == sorted(places) and max(places) > 25
    assert set(places) < set(sampled_places(tasks, 20))  # more tasks only add some
    assert [tasks[::-1][place].key for place in sampled_places(tasks[::-1], 10)] == [tasks[place].key for place in reversed(places)]
    suite = Suite("sums", tasks, [(5, 6, number + 7) for number in range(40)], {})
    page = measure(TransformersEngine(llama, tokenizer), suite, replace(HOW, pass_n=10), lambda pairs: [Reward(0.0) for _ in pairs])
    assert [place for place, item in enumerate(page["items"]) if "sampled_reward" in item] == places
    assert page["row"]["pass_n"] == 10 and page["row"]["greedy_on_sampled"] == 0.0


def test_greedy_accuracy_on_the_sampled_tasks_is_of_these_tasks_only():
    class FirstTold(Parrot):
        def generate(self, prompts, *, num_samples=1, **how):
            texts = [[text] for text in GREEDY_TEXTS] if num_samples == 1 else SAMPLED_TEXTS[:1]
            return [[Completion((5,), (-0.1,), text, "stop", 0, 0) for text in group] for group in texts]

    (place,) = sampled_places(SUITE.tasks, 1)
    row = measure(FirstTold(), SUITE, replace(HOW, pass_n=1), judge)["row"]
    assert row["greedy_on_sampled"] == [1.0, 0.0][place] and row["accuracy"] == 0.5


def test_equal_questions_have_samples_of_their_own_and_are_counted(llama, tokenizer):
    engine, asked = TransformersEngine(llama, tokenizer), []
    one, other = Task("3 + 4?", "7", "numeric"), Task("0 + 1?", "1", "numeric")
    suite = Suite("sums", [one, other, one, one], [(5, 6, 7), (8, 9, 10), (5, 6, 7), (5, 6, 7)], {})

    def judge(pairs):
        asked.append([text for text, _ in pairs])
        return [Reward(0.0) for _ in pairs]

    found = measure(engine, suite, replace(HOW, pass_n=4), judge)
    greedy, drawn = asked
    assert greedy[0] == greedy[2] == greedy[3]
    assert len({tuple(drawn[start : start + 3]) for start in (0, 6, 9)}) == 3
    assert (found["row"]["n"], found["row"]["repeated"]) == (4, 2)
    asked.clear()
    alone = measure(engine, replace(suite, tasks=suite.tasks[:2], prompts=suite.prompts[:2]), HOW, judge)
    assert asked[1] == drawn[:6]  # those that come once are sampled as ever
    assert alone["row"]["repeated"] == 0


def test_a_suite_without_any_score_is_the_verifiers_fault():
    said = r"measuring sums: 2 of 2 answers could not be scored.*most often: it crashed, as of the answer '7' to '3 \+ 4\?'"
    with pytest.raises(UserError, match=said):
        measure(Parrot(), SUITE, HOW, lambda pairs: [Reward(None, message="it crashed") for _ in pairs])


@pytest.mark.parametrize(
    ("answers", "place"), [(["a", "b", "b"], 1), (["a", "b"], 0), (["7", "8", "7"], 0), (["x"], 0), ([None, None, "x"], 2), ([None], 0)]
)
def test_the_majority_is_the_first_of_the_most_frequent_answers(answers, place):
    assert majority(answers) == place


def test_samples_vote_as_a_majority_vote_reads_them():
    texts = ["It is 8", "3 + 4 = 7", "It is 8", "4 + 3 = 7", "7 in all"]

    class Differing:
        def generate(self, prompts, *, num_samples=1, **_):
            return [[Completion((5,), (-0.1,), text, "stop", 0, 0) for text in texts[:num_samples]]]

    suite = Suite("sums", [Task("3 + 4?", "7", "numeric")], [(1,)], {})
    how = replace(HOW, pass_n=1, num_samples=5)
    row = measure(Differing(), suite, how, lambda pairs: [numeric(text, task) for text, task in pairs])["row"]
    assert row["majority_at_5"] == 1.0  # as text "It is 8" is the commonest


def graded(pairs):
    """-5 to 30 by the text's length; right from 15 on."""
    return [Reward(None, message="no text") if text == "2" else Reward(float(len(text)) * 2 - 5, right_at=10.0) for text, _ in pairs]


def test_rewards_of_any_range_stand_beside_the_share_that_reaches_the_threshold():
    page = measure(Parrot(), SUITE, replace(HOW, max_unscored_share=0.5), graded)
    row = page["row"]
    # greedy: "7" and "no idea"; sampled: "8", "The answer is 7." (27), "7" and "1"; two have no score
    assert row["mean_reward"] == (-3.0 + 9.0) / 2 and row["accuracy"] == 0.0
    assert row["sampled_mean_reward"] == (-3.0 + 27.0 - 3.0 - 3.0) / 4 and row["sampled_accuracy"] == 1 / 6
    assert (row["sampled_n"], row["sampled_unscored"], row["unscored"]) == (6, 2, 0)
    assert row["mean_reward_low"] >= -3.0 and row["mean_reward_high"] <= 9.0 and tells_more(row)
    assert [item["sampled_reward"] for item in page["items"]] == [7.0, -3.0]
    assert [(item["score"], item["right"]) for item in page["items"]] == [(-3.0, False), (9.0, False)]
    json.dumps(page)


def test_an_evaluation_stops_where_samples_can_not_be_scored():
    def silent(pairs):
        return judge(pairs) if len(pairs) == 2 else [Reward(None, message="oh") for _ in pairs]

    with pytest.raises(TooManyUnscored, match="measuring sums: 6 of 6 answers could not be scored"):
        measure(Parrot(), SUITE, HOW, silent)
