"""Tasks that the policy writes: what is made of a step, by an engine that says what it is told; and whole runs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from run_outputs import attempts_of, practised

from etude.callbacks.synthetic_tasks import SyntheticTasks, Writer
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.settings import RolloutSettings
from etude.rollouts.synthetic.settings import SyntheticTasksSettings
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.verifiers import numeric
from etude.training.ledger import Ledger

PENS = Task("Ann has 7 pens and gives 2 to Bob. How many are left?", "5", "numeric")
CAKES = Task("Kim baked 4 cakes and ate 1. How many are left?", "3", "numeric")
GOOD, EASY = "Tom won 9 games and lost 4. By how many is he ahead?", "Sue had 8 hens until a fox took 3 away. How many stayed?"
LEAKS, COPY = "Max owns 5 red cars. How many does he own?", PENS.question


class Scripted:
    """Says in turn what `answers` has for the text that a prompt ends with."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def generate(self, prompts, *, num_samples, on_complete, keys, **_):
        for place, prompt in enumerate(prompts):
            question = bytes(prompt).decode()
            self.asked.append(question)
            texts = next(texts for end, texts in self.answers.items() if question.endswith(end))
            on_complete(place, [Completion((1,), (-1.0,), texts[i % len(texts)], "stop", keys[place][i], 0) for i in range(num_samples)])


def attempt(text):
    return Attempt.of((1,), Completion((1, 2), (-1.0, -1.0), text, "stop", 0, 0))


def judge(pairs):
    return [numeric(text, task) for text, task in pairs]


def sampled_step() -> RolloutBatch:
    groups = [
        Group(PENS, tuple(map(attempt, ["7 - 2 = 5", "9", "7 - 2 = 5", "8"]))),
        Group(CAKES, tuple(map(attempt, ["4 - 1 = 3"] * 4))),  # too easy to vary, and an example of how problems look
    ]
    rewards = [[numeric(each.text, group.task) for each in group.attempts] for group in groups]
    return RolloutBatch(1, groups, rewards, {"judged": 8}, {"rollout_seconds": 1.0, "feedback_seconds": 1.0})


def writer(engine, *, measured=(), **how) -> Writer:
    settings = SyntheticTasksSettings(**{"method": "svs", "sources": 2, "problems": 4, "shots": 1} | how)
    render, keys = (lambda task: tuple(task.question.encode())), {task.key for task in measured}
    return Writer(settings, RolloutSettings(num_samples=4), engine, judge, render, 10_000, 0, keys)


def written(engine, **how) -> RolloutBatch:
    """A step with what the policy wrote beside its tasks."""
    batch = sampled_step()
    writer(engine, **how).add_to(batch)
    return batch


def test_variants_are_written_checked_solved_and_their_writing_is_rewarded():
    engine = Scripted({"Problem:": [GOOD, EASY, LEAKS, COPY], GOOD: ["5", "6", "7", "8"], EASY: ["5"]})
    found = written(engine)
    (given, other, _, good, easy) = found.groups
    assert (given.task, other.task, found.num_synthetic) == (PENS, CAKES, 3)
    assert [reward.score for reward in found.rewards[2]] == [1.0, 0.0, 0.0, 0.0]  # one in four is right; all are; a leak; a copy
    assert [reward.message for reward in found.rewards[2]][2:] == ["the problem is flawed: leak", "the problem is flawed: copy"]
    assert [reward.score for reward in found.rewards[3]] == [1.0, 0.0, 0.0, 0.0]
    assert (good.task.question, good.task.answer, easy.task.question) == (GOOD, "5", EASY)
    assert engine.asked[0].endswith("Solution: 4 - 1 = 3\nProblem: " + CAKES.question + "\n\nSolution: 7 - 2 = 5\nProblem:")
    assert len(engine.asked) == 3  # nobody is asked to solve what is flawed
    flaws = {"unfinished": 0, "empty": 0, "leak": 1, "copy": 1, "measured": 0}
    counts = flaws | {"written": 4, "valid": 2, "rewarded": 1, "writing_reward": 0.25, "reward": pytest.approx(5 / 8)}
    assert found.metrics == {"judged": 8} | {f"synthetic_tasks/{name}": value for name, value in counts.items()}


def test_an_item_of_the_evaluation_is_solved_by_nobody():
    engine = Scripted({"Problem:": [GOOD], GOOD: ["5", "6"]})
    found = written(engine, measured=[Task(GOOD)])
    assert found.metrics["synthetic_tasks/measured"] == 4 - found.metrics["synthetic_tasks/copy"] > 0 and found.num_synthetic == 1


def test_a_proposer_is_rewarded_where_its_solvers_are_at_odds():
    engine = Scripted({"Problem:": [GOOD, EASY, "What would you say to that?", LEAKS], GOOD: ["5", "5", "6", "7"], EASY: ["5"]})
    engine.answers |= {"to that?": ["a", "b", "1", "2"], LEAKS: ["5", "5", "5", "4"]}
    how = {"method": "proposer", "sources": 1, "min_share": 0.5}
    found = written(engine, **how)
    writing = dict(zip([each.text for each in found.groups[2].attempts], [v.score for v in found.rewards[2]], strict=True))
    assert writing == {GOOD: 1.0, EASY: 0.0, "What would you say to that?": 0.0, LEAKS: 0.75}  # 4 p (1 - p) of 1/2, 1, no majority, 3/4
    assert [reward.score for reward in found.rewards[3]] == [1.0, 1.0, 0.0, 0.0]
    assert {group.task.answer for group in found.groups[3:]} == {None}


def test_without_a_source_the_step_is_as_it_was():
    batch = sampled_step()
    batch.rewards[0] = [Reward(0.0)] * 4
    before = batch.groups, [list(row) for row in batch.rewards], 0
    writer(Scripted({})).add_to(batch)
    assert (batch.groups, batch.rewards, batch.num_synthetic) == before


def test_no_more_sources_than_are_wanted_and_none_without_room():
    groups = [
        Group(Task(f"{number} + 5?", str(number + 5), "numeric"), tuple(map(attempt, [f"It is {number + 5}.", "0"]))) for number in range(9)
    ]
    rewards = [[numeric(each.text, group.task) for each in group.attempts] for group in groups]
    first, second = (RolloutBatch(step, groups, rewards, {}, {"rollout_seconds": 0.0, "feedback_seconds": 0.0}) for step in (1, 2))
    own = writer(Scripted({"Problem:": ["no"]}), sources=3)
    assert len(own._sources(first)) == 3 and own._sources(first) == own._sources(first) != own._sources(second)
    own.room_tokens = 10
    assert own._sources(first) == []


def test_the_ledger_keeps_the_tasks_that_were_written(tmp_path):
    engine = Scripted({"Problem:": [GOOD, EASY, LEAKS, COPY], GOOD: ["5", "6", "7", "8"], EASY: ["5"]})
    found, ledger = written(engine), Ledger(tmp_path / "ledger")
    ledger.write(found)
    again = ledger.read(1, [PENS, CAKES])
    assert again == replace(found, is_from_ledger=True)
    assert again.groups[again.given] == found.groups[:2]


@pytest.mark.parametrize("method", ["svs", "proposer"])
def test_written_tasks_are_solved_and_judged_beside_those_of_the_step(small, tmp_path, method):
    settings = {"synthetic_tasks.method": method, "synthetic_tasks.max_new_tokens": 24, "curriculum.method": "weakness"}
    result = small(tmp_path / "whole", settings)
    steps, rows = practised(tmp_path / "whole"), attempts_of(tmp_path / "whole")
    assert result["status"] == "finished" and all(step["groups"] == 6 for step in steps)
    assert sum(step["synthetic_tasks/written"] for step in steps) > 0
    solved = [sum(row.get("made") == "a problem of its own" for row in rows if row["step"] == step["step"]) for step in steps]
    by_verifier = solved if method == "svs" else [0] * len(steps)  # a proposer's are judged by a majority vote
    assert sum(solved) > 0 and [row["judged"] for row in steps] == [24 + number for number in by_verifier]


@pytest.mark.parametrize("method", ["svs", "proposer"])
def test_a_written_task_has_no_choices(method):
    task = Task("Which is a fruit?", "B", "choice", metadata={"choices": ["a stone", "a pear"]}, origin="fruit.jsonl:1")
    run = SimpleNamespace(data=SimpleNamespace(train=[PENS, task]))
    with pytest.raises(UserError, match=r"the answer of fruit\.jsonl:1 is a letter among its own: leave synthetic_tasks out, or give"):
        SyntheticTasks(SyntheticTasksSettings(method)).prepare(run)
