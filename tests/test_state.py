"""One contract over everything that a run has to carry over a kill: what `state_dict` gives, `load_state_dict` takes, and both go on alike.

A class that defines `state_dict` anywhere in the package has to be in the table; the tests of runs show that a checkpoint keeps its state.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import etude
from etude.callbacks.curriculum import CurriculumCallback
from etude.callbacks.entropy_bonus import EntropyBonus, EntropyBonusSettings
from etude.callbacks.gate import Gate, GateSettings
from etude.callbacks.implicit_reward import ImplicitRewardCallback, ImplicitRewardSettings
from etude.callbacks.step_model import StepModelCallback
from etude.callbacks.vote_calibration import VoteCalibration, VoteCalibrationSettings
from etude.console.reporter import Silent
from etude.device.machine import Machine
from etude.engine.completion import Completion
from etude.learn.example import demonstration
from etude.learn.implicit_reward import ImplicitReward
from etude.learn.learner import Learner, Stream
from etude.learn.losses import negative_log_likelihood
from etude.learn.optimizer import OptimizerSettings
from etude.learn.step_model import Prefixes, StepModel, StepModelSettings, StepTarget
from etude.rewards.majority_vote import MajorityVoteReward, MajorityVoteSettings
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.curriculum import Curriculum, CurriculumSettings
from etude.rollouts.search.settings import Search
from etude.rollouts.settings import RolloutSettings
from etude.rollouts.steps import Steps
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tiny import tiny_model
from etude.training.callback import Callback
from etude.training.run import Run


@dataclass(frozen=True)
class Part:
    """How to try a stateful part out. What it works on, the model, is saved elsewhere."""

    make: Callable[[Any], Any]
    use: Callable[[Any], Any]
    """One turn of its work; returns what can be seen of it."""


def _learner(model):
    optimizer = OptimizerSettings(learning_rate=1e-2, warmup_steps=3, lr_scheduler="linear", decay_steps=9)
    return Learner(model, optimizer, [Stream("imitate", negative_log_likelihood)])


def _update(learner):
    metrics = learner.update([demonstration((5, 6, 7), (8, 9)), demonstration((4,), (9, 9, 10))])
    return metrics, [parameter.detach().clone() for parameter in learner.parameters]


def _step_model(model):
    return StepModel(model, StepModelSettings(hidden=4, replay_steps=2))


def _foresee_and_learn(step_model):
    answers = [Prefixes((5, 6, 7), (8, 9), (0, 1, 2)), Prefixes((4,), (9,), (1,))]
    values, mean, trust = step_model.values(answers), step_model.mean_score, step_model.trust
    step_model.observe([1.0, 0.0, 1.0], [1.0, 0.5, 1.0])
    return values, mean, trust, step_model.update([StepTarget(own, (0.25, 0.5, 1.0)[: len(own.ends)]) for own in answers])


def _implicit_reward(_):
    """What it is compared with is the model that practice began with, in both cases."""
    return ImplicitReward(tiny_model(), 0.05, OptimizerSettings(learning_rate=1e-2))


def _reward_and_learn(implicit):
    own = [parameter.detach().clone() for parameter in implicit.learner.parameters]
    return own, implicit.update(_batch().groups, _batch().rewards)


_TASKS = [Task(f"{number}?", metadata={"level": number % 2}) for number in range(6)]
_LEVELS = CurriculumSettings("levels", levels=[{}, {}], level_groups=1, raise_at=0.5)


def _curriculum(_):
    return Curriculum(_TASKS, _LEVELS, seed=3)


def _draw_and_observe(curriculum):
    places = curriculum.draw(len(curriculum.visits) + 1, 2)
    batch = _batch(places)
    return places, curriculum.observe(batch.groups, batch.rewards), curriculum.weights()


def _held(_):
    class Unsaved(Run):
        """Its checkpoints are not written."""

        def save_step(self, stage, learner, done):
            pass

    return Unsaved(None, "mine", None, None, Silent(), None)


def _hold(run):
    before = run._spared()
    run.hold((run.held or 0) + 2, None, None)
    return before, run.held


# ------------------------------------------------------------------ callbacks


def _batch(places=(0,)):
    """Two attempts at each task, of which the first is right, and the second too at every other task."""
    completions = [Completion(tokens, (-1.0,) * len(tokens), "", "stop", 0, 0) for tokens in ((7, 8), (9, 10, 11))]
    groups = [Group(_TASKS[place], tuple(Attempt.of((5, 6), each) for each in completions)) for place in places]
    batch = RolloutBatch(1, groups, [[Reward(1.0), Reward(float(place % 2))] for place in places], {}, {"rollout_seconds": 0.0})
    batch.begin_update()
    return batch


def _run(model):
    """What callbacks read and write of a run of practice."""
    return SimpleNamespace(
        model=model,
        seed=3,
        place=SimpleNamespace(dtype=torch.float32),
        settings=SimpleNamespace(machine=Machine(), rollout=RolloutSettings(search=Search(steps=Steps("tokens", max_tokens=1))), steps=9),
        engine=SimpleNamespace(text_of=lambda tokens: "".join(map(chr, tokens))),
        data=SimpleNamespace(items=[(task, ()) for task in _TASKS]),
        sampler=SimpleNamespace(step_value=None),
        learner=SimpleNamespace(rate_factor=1.0, entropy_bonus=0.0),
        reward=SimpleNamespace(majority_vote=MajorityVoteReward(MajorityVoteSettings(min_vote_share=0.125))),
        verifiers=SimpleNamespace(judge=lambda pairs: [Reward(1.0) for _ in pairs]),
        replay_factor=1.0,
        held=3,
        probe=object(),
        fix_reference=lambda: None,
        row_before=lambda measure: {"choice_accuracy": 0.5},
        known_row=lambda: {"choice_accuracy": 0.4},
    )


def _started(callback, run):
    callback.start(run)
    return callback


def _implicit_reward_callback(_):
    return _started(
        ImplicitRewardCallback(ImplicitRewardSettings(coef=1.0, optimizer=OptimizerSettings(learning_rate=1e-2))), _run(tiny_model())
    )


def _step_model_callback(model):
    return _started(StepModelCallback(StepModelSettings(hidden=4, replay_steps=2)), _run(model))


def _update_with(callback):
    batch = _batch()
    callback.after_rollout(batch)
    batch.begin_update()
    metrics = callback.before_update(batch) | callback.after_update(batch)
    return metrics, batch.shaped_rewards, batch.token_advantages


def _curriculum_callback(_):
    return _started(CurriculumCallback(_LEVELS), _run(None))


def _select_and_update(callback):
    places = callback.select_tasks(len(callback.curriculum.visits) + 1, 2)
    return places, callback.after_update(_batch(places))


def _entropy_bonus(_):
    run = _run(None)
    entropies = cycle((0.4, 0.6, 0.3))
    run.entropy_of = lambda batch: next(entropies)
    return _started(EntropyBonus(EntropyBonusSettings(entropy_coef=0.01, target=0.5)), run)


def _steps_of_a_bonus(bonus):
    return [(bonus.before_update(_batch()), bonus.run.learner.entropy_bonus) for _ in range(3)]


def _gate(_):
    return _started(Gate(GateSettings(every=1, action="lower_rate", max_rollbacks=2)), _run(None))


def _decide_and_roll_back(gate):
    before = gate.run.learner.rate_factor
    decided = gate.decide(4, {}, [], is_last=False)
    gate.on_rollback()
    return before, decided, gate.is_over, gate.run.learner.rate_factor


def _vote_calibration(_):
    callback = VoteCalibration(VoteCalibrationSettings(n=1, every=3))
    callback._sampled = lambda step: [Group(_TASKS[0], tuple(Attempt.of((5,), Completion((7,), (-1.0,), "4", "stop", 0, 0)) for _ in "ab"))]
    return _started(callback, _run(None))


def _calibrate(callback):
    before = callback.share
    callback.before_rollout(1 if before is None else 2)
    return before, callback.share, callback.vote.min_vote_share


PARTS = {
    Curriculum: Part(_curriculum, _draw_and_observe),
    Learner: Part(_learner, _update),
    StepModel: Part(_step_model, _foresee_and_learn),
    ImplicitReward: Part(_implicit_reward, _reward_and_learn),
    Run: Part(_held, _hold),
    CurriculumCallback: Part(_curriculum_callback, _select_and_update),
    EntropyBonus: Part(_entropy_bonus, _steps_of_a_bonus),
    Gate: Part(_gate, _decide_and_roll_back),
    ImplicitRewardCallback: Part(_implicit_reward_callback, _update_with),
    StepModelCallback: Part(_step_model_callback, _update_with),
    VoteCalibration: Part(_vote_calibration, _calibrate),
}


def test_every_stateful_part_is_in_the_table():
    found = set()
    for module in pkgutil.walk_packages(etude.__path__, "etude."):
        if not module.name.endswith("__main__"):
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
            found |= {kind for _, kind in members if kind.__module__.startswith("etude.") and "state_dict" in vars(kind)}
    found = {kind for kind in found if not getattr(kind, "_is_protocol", False)} - {Callback}
    assert found == set(PARTS)
    assert all("load_state_dict" in vars(kind) for kind in found)


def test_a_callback_without_a_state_has_none():
    assert Callback(None).state_dict() == {}
    Callback(None).load_state_dict({})


@pytest.mark.parametrize("part", PARTS.values(), ids=[kind.__name__ for kind in PARTS])
@pytest.mark.parametrize("turns", [0, 1, 4])
def test_a_copy_that_loads_the_state_goes_on_to_the_same_bytes(model_of, part, turns):
    model, copied = model_of("llama"), model_of("llama", seed=1)
    first, second = part.make(model), part.make(copied)
    for _ in range(turns):
        part.use(first)
    part.use(second)  # a past of its own, which loading has to forget
    copied.load_state_dict(model.state_dict())
    second.load_state_dict(load(save(first.state_dict())))  # as a checkpoint keeps it
    for _ in range(3):
        assert_same(part.use(first), part.use(second))
    assert_same(first.state_dict(), second.state_dict())


def assert_same(first, second):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second
