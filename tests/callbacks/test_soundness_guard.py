"""The soundness guard takes the score of attempts that say nothing, and of no others."""

from types import SimpleNamespace

import pytest

from etude.callbacks.soundness_guard import SoundnessGuard, SoundnessGuardSettings
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task

SOUND, NOISE, GENERAL, WRONG = (5, 6), (7, 7), (8, 8), (9, 9)
LOGPROB = {SOUND: {True: -1.0, False: -4.0}, NOISE: {True: -9.0, False: -9.0}, GENERAL: {True: -1.0, False: -1.0}}


class Learner:
    """The start model: knows each request's own answers, which are longer than (0,)."""

    def __init__(self):
        self.asked = []

    def logprobs(self, examples, reference):
        assert reference
        self.asked += [example.completion for example in examples]
        return [(LOGPROB[example.completion][example.prompt == (1,)],) * 2 for example in examples]


def guarded(settings, rewards):
    completions = [Completion(tokens, (-1.0, -1.0), "", "stop", 0, 0) for tokens in (SOUND, NOISE, GENERAL, WRONG)]
    data = SimpleNamespace(train=[Task("Describe a boat."), Task("Describe a bus.")])
    other = Group(Task("Describe a bus."), (Attempt.of((2,), Completion(WRONG, (-1.0, -1.0), "", "stop", 0, 0)),))
    own = Group(Task("Describe a boat."), tuple(Attempt.of((1,), completion) for completion in completions))
    batch = RolloutBatch(1, [own, other], [[Reward(score) for score in rewards], [Reward(0.0)]], {}, {})
    batch.begin_update()
    callback, learner = SoundnessGuard(settings), Learner()
    run = SimpleNamespace(
        learner=learner, render=lambda task: (1,) if "boat" in task.question else (2,), add_reference=lambda: None, data=data
    )
    callback.start(run)
    return callback.before_update(batch), [reward.score for reward in batch.shaped_rewards[0]], batch, learner


def test_attempts_without_fluency_or_topic_lose_their_score_and_the_logged_rewards_stay():
    metrics, scores, batch, _ = guarded(SoundnessGuardSettings(), [1.0, 1.0, 0.5, 0.0])
    assert scores == [1.0, 0.0, 0.0, 0.0]
    assert [reward.score for reward in batch.rewards[0]] == [1.0, 1.0, 0.5, 0.0]
    assert metrics == {"soundness_guard/refused_right": 1 / 5, "soundness_guard/fluency": 1 / 5, "soundness_guard/topic": 1 / 5}


def test_only_attempts_that_can_lose_are_measured():
    _, scores, _, learner = guarded(SoundnessGuardSettings(), [0.0, None, 1.0, 0.0])
    assert scores == [0.0, None, 0.0, 0.0] and set(learner.asked) == {GENERAL}


def test_training_tasks_of_one_request_are_refused_at_the_start():
    run = SimpleNamespace(learner=None, render=None, data=SimpleNamespace(train=[Task("Describe a boat.")] * 3))
    with pytest.raises(UserError, match="all training tasks have the same"):
        SoundnessGuard(SoundnessGuardSettings()).start(run)


def test_thresholds_of_minus_infinity_change_nothing():
    nothing = SoundnessGuardSettings(min_fluency=float("-inf"), min_topic=float("-inf"))
    assert guarded(nothing, [1.0, 1.0, 0.5, 0.0])[1] == [1.0, 1.0, 0.5, 0.0]


def test_a_threshold_of_log_probs_that_is_not_negative_is_refused():
    with pytest.raises(UserError, match=r"soundness_guard.min_fluency must be below 0, got 1"):
        SoundnessGuardSettings(min_fluency=1.0)
