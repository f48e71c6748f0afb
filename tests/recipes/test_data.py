"""What a practice run refuses of its tasks, before a model is loaded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.evaluation.settings import Evaluation
from etude.rewards.judge import Judging
from etude.tasks.sources import TaskSource
from etude.training.data import load_data
from etude.training.settings import PracticeSettings


@pytest.fixture
def settings(letter_files: Path) -> PracticeSettings:
    """Practice on `train.jsonl`, whose third row has no answer."""
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    del rows[2]["answer"]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PracticeSettings(TaskSource(path=["train.jsonl"]), evaluation=Evaluation(path=["test.jsonl"]))


def test_a_row_without_an_answer_is_refused_where_its_verifier_gives_the_reward_or_measures(settings):
    combined = {"reward": "combined", "reward_weights": {"verifier": 1.0, "judge": 1.0}, "judge": Judging(model="tiny-random")}
    measured = {"reward": "majority_vote", "evaluation": Evaluation(path=["train.jsonl"])}
    for changes in ({}, combined, measured):
        with pytest.raises(UserError, match=r"^train\.jsonl:3: no answer, which the exact verifier compares with"):
            load_data(replace(settings, **changes), "mine", None)


def test_a_row_without_an_answer_is_practised_on_where_others_give_the_reward(settings):
    judge = Judging(model="tiny-random")
    combined = {"reward": "combined", "reward_weights": {"verifier": 1.0, "judge": 1.0}, "reward_optional": ["verifier"]}
    Path("mine.py").write_text("def judge(text, task): return 1.0\n")
    own = {"tasks": replace(settings.tasks, verifier="mine.py:judge")}
    for changes in ({"reward": "majority_vote"}, {"reward": "judge", "judge": judge}, {**combined, "judge": judge}, own):
        assert len(load_data(replace(settings, **changes), "mine", None).train) == 60


def test_a_file_of_tasks_that_is_not_there_is_named_before_what_is_to_be_measured(letter_files):
    for path, message in (("nofile.jsonl", r"^path 'nofile\.jsonl' is not a file"), ("train.jsonl", "^there is nothing to measure")):
        with pytest.raises(UserError, match=message):
            load_data(PracticeSettings(TaskSource(path=[path])), "mine", None)
