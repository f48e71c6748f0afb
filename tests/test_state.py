"""One contract over everything that a run has to carry over a kill: what `state` gives, `load` takes, and both go on alike.

A class with `state` and `load` anywhere in the package has to be in the table; the tests of runs show that a checkpoint keeps its state.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import etude
from etude.callbacks.entropy_bonus import EntropyBonus
from etude.callbacks.gate import GateSettings
from etude.callbacks.implicit_reward import ImplicitRewardSettings
from etude.engine.completion import Completion
from etude.learn.example import demonstration
from etude.learn.implicit_reward import ImplicitReward
from etude.learn.learner import Learner, Optimiser, Stream
from etude.learn.losses import negative_log_likelihood
from etude.learn.step_model import Beginnings, Outlook, StepModel, StepModelSettings
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.collapse import CollapseWatch
from etude.rollouts.curriculum import Curriculum, CurriculumSettings
from etude.tasks.task import Task
from etude.tiny import tiny_model


@dataclass(frozen=True)
class Part:
    """How to try a stateful part out. What it works on, the model, is saved elsewhere."""

    make: Callable[[Any], Any]
    use: Callable[[Any], Any]
    """One turn of its work; returns what can be seen of it."""


def _learner(model):
    optimiser = Optimiser(learning_rate=1e-2, warmup_steps=3, decay_steps=9)
    return Learner(model, optimiser, [Stream("imitate", negative_log_likelihood)])


def _update(learner):
    metrics = learner.update([demonstration((5, 6, 7), (8, 9)), demonstration((4,), (9, 9, 10))])
    return metrics, [parameter.detach().clone() for parameter in learner.parameters]


def _step_model(model):
    return StepModel(model, StepModelSettings(on=True, hidden=4, replay_steps=2))


def _foresee_and_learn(step_model):
    answers = [Beginnings((5, 6, 7), (8, 9), (0, 1, 2)), Beginnings((4,), (9,), (1,))]
    values, mean, trust = step_model.values(answers), step_model.mean_score, step_model.trust
    step_model.observe([1.0, 0.0, 1.0], [1.0, 0.5, 1.0])
    return values, mean, trust, step_model.update([Outlook(own, (0.25, 0.5, 1.0)[: len(own.ends)]) for own in answers])


def _implicit_reward(_):
    """What it is compared with is the model that practice began with, in both cases."""
    return ImplicitReward(tiny_model(), ImplicitRewardSettings(coefficient=1.0, optimiser=Optimiser(learning_rate=1e-2)))


def _reward_and_learn(implicit):
    completions = [Completion(tokens, (-1.0,) * len(tokens), "", "stop", 0, 0) for tokens in ((7, 8), (9, 10, 11))]
    groups = [Group(Task("?"), tuple(Attempt.of((5, 6), completion) for completion in completions))]
    own = [parameter.detach().clone() for parameter in implicit.learner.parameters]
    return own, implicit.update(groups, [[Verdict(1.0), Verdict(0.0)]])


def _entropy_bonus(_):
    return EntropyBonus(EntropySettings(bonus=0.01, target=0.5))


def _steps_of_a_bonus(bonus):
    return [bonus.after(entropy) for entropy in (0.4, 0.6, 0.3)]


_TASKS = [Task(f"{number}?", metadata={"level": number % 2}) for number in range(6)]


def _curriculum(_):
    return Curriculum(_TASKS, CurriculumSettings("levels", levels=[{}, {}], level_groups=1, raise_at=0.5), seed=3)


def _draw_and_observe(curriculum):
    places = curriculum.draw(len(curriculum.visits), 2)
    groups = [Group(_TASKS[place], ()) for place in places]
    return places, curriculum.observe(groups, [[Verdict(1.0), Verdict(place % 2 / 1.0)] for place in places]), curriculum.weights()


def _gate(_):
    return Gate(GateSettings(every=1, action="lower_rate", max_falls=2), {"choice_accuracy": 0.5})


def _decide(gate):
    passes = gate.passes({"choice_accuracy": 0.4})
    gate.fall()
    return passes, gate.rate_factor, gate.is_over


def _holding(_):
    return Holding(lambda step: None, lambda step: None)


def _hold_and_fall_back(holding):
    holding.hold((holding.step or 0) + 2)
    return holding.fall_back()


def _gating(model):
    learner = _learner(model)
    learner.read = []
    return Gating(_gate(model), Holding(lambda step: None, learner.read.append), learner, None, lambda: {"choice_accuracy": 0.4})


def _look_and_act(gating):
    gating.holding.step = gating.holding.step or 3
    seen = gating.look(4, is_last=False)
    gating.act(4)
    return seen, gating.is_over, gating.learner.rate_factor


def _alarm(_):
    rows = [{"step": step, **dict.fromkeys(("vote_share", "constant_share", "distinct_majorities"), 0.1)} for step in range(1, 9)]
    rows = [row | {"entropy": 1.0, "completion_tokens": 9.0} for row in rows]
    return Alarm(CollapseWatch(CollapseAlarm("fall_back", window=2)), Holding(lambda step: None, lambda step: None), lambda: rows)


def _hold_in_turn(alarm):
    alarm.act((alarm.holding.step or 0) + 2)
    return alarm.holding.step


PARTS = {
    Alarm: Part(_alarm, _hold_in_turn),
    Curriculum: Part(_curriculum, _draw_and_observe),
    Learner: Part(_learner, _update),
    StepModel: Part(_step_model, _foresee_and_learn),
    EntropyBonus: Part(_entropy_bonus, _steps_of_a_bonus),
    ImplicitReward: Part(_implicit_reward, _reward_and_learn),
    Gate: Part(_gate, _decide),
    Holding: Part(_holding, _hold_and_fall_back),
    Gating: Part(_gating, _look_and_act),
}


def test_every_stateful_part_is_in_the_table():
    found = set()
    for module in pkgutil.walk_packages(etude.__path__, "etude."):
        if not module.name.endswith("__main__"):
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
            found |= {
                kind for _, kind in members if kind.__module__.startswith("etude.") and hasattr(kind, "state") and hasattr(kind, "load")
            }
    found = {kind for kind in found if not getattr(kind, "_is_protocol", False)}
    assert found == set(PARTS)


@pytest.mark.parametrize("part", PARTS.values(), ids=[kind.__name__ for kind in PARTS])
@pytest.mark.parametrize("turns", [0, 1, 4])
def test_a_copy_that_loads_the_state_goes_on_to_the_same_bytes(model_of, part, turns):
    model, copied = model_of("llama"), model_of("llama", seed=1)
    first, second = part.make(model), part.make(copied)
    for _ in range(turns):
        part.use(first)
    part.use(second)  # a past of its own, which loading has to forget
    copied.load_state_dict(model.state_dict())
    second.load(load(save(first.state())))  # as a checkpoint keeps it
    for _ in range(3):
        assert_same(part.use(first), part.use(second))
    assert_same(first.state(), second.state())


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
