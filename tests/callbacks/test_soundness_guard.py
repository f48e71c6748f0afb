"""The soundness guard takes the score of attempts that say nothing, and of no others."""

from types import SimpleNamespace

import pytest
import torch

from etude.callbacks.soundness_guard import SoundnessGuard, SoundnessGuardSettings
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task

SOUND, NOISE, GENERAL, WRONG = (5, 6), (7, 7), (8, 8), (9, 9)
LOGPROB = {SOUND: {True: -1.0, False: -4.0}, NOISE: {True: -9.0, False: -9.0}, GENERAL: {True: -1.0, False: -1.0}}


class Start:
    """The model as it came: log-probs by whether the prompt is the answers' own request, (1,)."""

    def __init__(self):
        self.asked = []

    def logprobs(self, pairs):
        self.asked += [answer for _, answer in pairs]
        return [(LOGPROB[answer][request == (1,)],) * 2 for request, answer in pairs]


def prepared(monkeypatch, settings, train=("Describe a boat.", "Describe a bus.")):
    """Return the guard, its model and the run."""
    start = Start()
    monkeypatch.setattr("etude.suites.retention_probe.logprobs_of", lambda *_: start.logprobs)
    run = SimpleNamespace(
        data=SimpleNamespace(train=[Task(question) for question in train]),
        render=lambda task: (1,) if "boat" in task.question else (2,),
        model=torch.nn.Linear(1, 1),
        place=None,
        settings=SimpleNamespace(machine=None),
        tokenizer=lambda text, add_special_tokens: {"input_ids": [int(digit) for digit in text]},
        judge=lambda pairs: [Reward(float(text != "99"), {"parsable": 1.0}) for text, _ in pairs],
    )
    callback = SoundnessGuard(settings)
    callback.prepare(run)
    return callback, start, run


def guarded(monkeypatch, settings, rewards):
    completions = [Completion(tokens, (-1.0, -1.0), "", "stop", 0, 0) for tokens in (SOUND, NOISE, GENERAL, WRONG)]
    other = Group(Task("Describe a bus."), (Attempt.of((2,), Completion(WRONG, (-1.0, -1.0), "", "stop", 0, 0)),))
    own = Group(Task("Describe a boat."), tuple(Attempt.of((1,), completion) for completion in completions))
    batch = RolloutBatch(1, [own, other], [[Reward(score) for score in rewards], [Reward(0.0)]], {}, {})
    batch.begin_update()
    callback, start, _ = prepared(monkeypatch, settings)
    return callback.before_update(batch), [reward.score for reward in batch.shaped_rewards[0]], batch, start


def test_attempts_without_fluency_or_topic_lose_their_score_and_the_logged_rewards_stay(monkeypatch):
    metrics, scores, batch, _ = guarded(monkeypatch, SoundnessGuardSettings(), [1.0, 1.0, 0.5, 0.0])
    assert scores == [1.0, 0.0, 0.0, 0.0]
    assert [reward.score for reward in batch.rewards[0]] == [1.0, 1.0, 0.5, 0.0]
    assert metrics == {"soundness_guard/refused_right": 1 / 5, "soundness_guard/fluency": 1 / 5, "soundness_guard/topic": 1 / 5}


def test_only_attempts_that_can_lose_are_measured(monkeypatch):
    _, scores, _, start = guarded(monkeypatch, SoundnessGuardSettings(), [0.0, None, 1.0, 0.0])
    assert scores == [0.0, None, 0.0, 0.0] and set(start.asked) == {GENERAL}


def test_evaluations_count_answers_that_are_right_and_sound(monkeypatch):
    _, start, run = prepared(monkeypatch, SoundnessGuardSettings())
    boat = Task("Describe a boat. Use no commas.", metadata={"subject": "Describe a boat."})
    rewards = run.judge([(text, boat) for text in ("56", "77", "88", "99")])
    assert [(reward.is_right, reward.parts.get("sound"), reward.message) for reward in rewards] == [
        (True, 1.0, ""),
        (False, 0.0, "not sound: fluency"),
        (False, 0.0, "not sound: topic"),
        (False, None, ""),
    ]
    assert WRONG not in start.asked and run.judge([("99", boat)])[0].score == 0.0


def test_training_tasks_of_one_request_are_refused_before_the_run(monkeypatch):
    with pytest.raises(UserError, match="all training tasks have the same"):
        prepared(monkeypatch, SoundnessGuardSettings(), train=["Describe a boat."] * 3)


def test_thresholds_of_minus_infinity_change_nothing(monkeypatch):
    nothing = SoundnessGuardSettings(min_fluency=float("-inf"), min_topic=float("-inf"))
    assert guarded(monkeypatch, nothing, [1.0, 1.0, 0.5, 0.0])[1] == [1.0, 1.0, 0.5, 0.0]


def test_a_threshold_of_log_probs_that_is_not_negative_is_refused():
    with pytest.raises(UserError, match=r"soundness_guard.min_fluency must be below 0, got 1"):
        SoundnessGuardSettings(min_fluency=1.0)
