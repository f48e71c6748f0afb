"""One step of practice: what reaches the learner is what the settings say."""

from dataclasses import replace

import pytest

from etude.callbacks.implicit_reward import ImplicitRewardCallback, ImplicitRewardSettings
from etude.callbacks.kl_penalty import KLPenalty, KLPenaltySettings
from etude.engine.completion import Completion
from etude.learn.learner import Learner
from etude.learn.losses import POLICY_LOSSES
from etude.learn.settings import Learning
from etude.learn.update import advantages_of, update_on
from etude.rollouts.attempts import HINTED, Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.callback_list import CallbackList
from etude.training.rollout_metrics import observed


class Recorder:
    """A learner that keeps what it is given."""

    def __init__(self):
        self.updates, self.rate_shares, self.recomputed = [], [], []

    def update(self, examples, size, *, rate_share):
        self.updates.append((examples, size))
        self.rate_shares.append(rate_share)
        return {"updates": float(len(self.updates))}

    def with_old_logprobs(self, examples):
        self.recomputed.append(prompts(examples))
        return [replace(example, behaviour_logprobs=(-float(len(self.updates)),) * len(example.completion)) for example in examples]

    def with_reference(self, examples):
        return [replace(example, reference_logprobs=(0.0,) * len(example.completion)) for example in examples]


def attempt(task: int, token: int) -> Attempt:
    return Attempt.of((1, task), Completion((token, 0), (-0.5, -0.5), "", "stop", key=0, policy_version=0))


GROUPS = [Group(Task(str(task)), (attempt(task, 5), attempt(task, 6))) for task in range(10, 14)]
REWARDS = [[Reward(1.0), Reward(0.0)], [Reward(0.0)] * 2, [Reward(1.0), Reward(0.0)], [Reward(1.0)] * 2]
"""Groups 10 and 12 have signal."""


def prompts(examples) -> set[int]:
    return {example.prompt[-1] for example in examples}


def step(groups=GROUPS, rewards=REWARDS) -> RolloutBatch:
    batch = RolloutBatch(1, list(groups), [list(row) for row in rewards], {}, {})
    batch.begin_update()
    return batch


@pytest.mark.parametrize("kl_coef", [0.0, 1e-12])
def test_dropping_groups_without_signal_moves_none_to_another_part(kl_coef):
    learner, batch, callbacks = Recorder(), step(), CallbackList()
    if kl_coef:
        callbacks.append(KLPenalty(KLPenaltySettings(kl_coef)))
        callbacks[0].learner = learner
    update_on(learner, batch, Learning(minibatches_per_epoch=2, epochs=2), on_examples=callbacks.on_examples(batch))
    with_signal = [{p for p in prompts(examples) if p in (10, 12)} for examples, _ in learner.updates]
    assert with_signal == [{10, 12}, set()] * 2
    assert [(size.sequences, size.tokens) for _, size in learner.updates] == [(4, 8)] * 4  # as sampled: half of 8 attempts, of 16 tokens


def test_every_part_is_averaged_over_its_own_attempts():
    groups = [GROUPS[0], GROUPS[0], GROUPS[2]]  # two prompts, one of them twice
    learner = Recorder()
    update_on(learner, step(groups, [REWARDS[0]] * 3), Learning(minibatches_per_epoch=2))
    assert [(len(examples), size.sequences, size.tokens) for examples, size in learner.updates] == [(4, 4, 8), (2, 2, 4)]


@pytest.mark.parametrize(("learn", "old"), [(Learning(), -0.5), (Learning(recompute_old_logprobs=True), 0.0), (Learning(loss="gspo"), 0.0)])
def test_ratios_are_to_the_policy_before_the_first_update_where_they_are_to_be_recomputed(learn, old):
    learner = Recorder()
    update_on(learner, step(GROUPS[:3], [REWARDS[0]] * 3), replace(learn, epochs=2, minibatches_per_epoch=2))
    assert learner.recomputed == ([{10, 12}, {11}] if old == 0.0 else [])  # as updates cut them
    assert {value for examples, _ in learner.updates for example in examples for value in example.behaviour_logprobs} == {old}


@pytest.mark.parametrize("method", ["policy_gradient", "imitation"])
def test_the_rate_follows_the_share_of_groups_with_signal_where_it_is_to(method):
    learner, batch = Recorder(), step(GROUPS[:3], REWARDS[:3])
    for is_on in (False, True):
        update_on(learner, batch, Learning(method, minibatches_per_epoch=2, scale_lr_by_informative_groups=is_on))
        update_on(learner, batch, Learning(method, scale_lr_by_informative_groups=is_on))
    assert learner.rate_shares == [1, 1, 1, 1, 0, pytest.approx(2 / 3)]  # of 10 and 12, of 11, of all three


def test_a_part_without_signal_replays_nothing():
    learner, asked = Recorder(), []

    def replay(tokens):
        asked.append(tokens)
        return []

    update_on(learner, step(GROUPS[:2], REWARDS[:2]), Learning(minibatches_per_epoch=2), extra=replay)
    assert asked == [4]


def test_attempts_that_saw_the_answer_do_not_count_in_the_batch():
    hinted = replace(attempt(11, 7), view=HINTED)
    groups = [GROUPS[0], Group(GROUPS[1].task, (*GROUPS[1].attempts, hinted))]
    learner = Recorder()
    update_on(learner, step(groups, [REWARDS[0], [*REWARDS[1], Reward(1.0)]]), Learning("imitation"))
    assert [(len(examples), size.sequences, size.tokens) for examples, size in learner.updates] == [(2, 4, 8)]


def test_masked_attempts_enter_no_loss_and_count_in_the_batch():
    learner, batch = Recorder(), step()
    batch.masked[0][1] = True
    update_on(learner, batch, Learning())
    assert [(len(examples), size.sequences, size.tokens) for examples, size in learner.updates] == [(3, 8, 16)]


def test_the_advantage_of_tokens_is_what_they_bring_times_its_weight():
    class Fixed:
        def rewards(self, groups):
            return [[(0.5, 0.0), (-0.5, 0.0)]]

    callback, batch = ImplicitRewardCallback(ImplicitRewardSettings(coef=0.5)), step(GROUPS[:1], REWARDS[:1])
    callback.model = Fixed()
    assert callback.before_update(batch) == {"implicit_reward/auc_within_task": 1.0}
    # to come 1/2, less the other's mean of -1/4, twice
    assert batch.token_advantages == [[[(0.5 * 1.0, 0.5 * 0.25), (0.5 * -1.0, 0.5 * -0.25)]]]
    assert more_than_without(batch, Learning(advantage="vineppo", outcome_coef=2.0)) == [
        [(0.5 + 2 * 0.5, 0.125 + 2 * 0.5), (-0.5 - 2 * 0.5, -0.125 - 2 * 0.5)]
    ]


@pytest.mark.parametrize(("advantage", "coefficient", "added"), [("vineppo", 0.0, 0.0), ("dr_grpo", 3.0, 0.0), ("treerl", 3.0, 1.5)])
def test_the_outcome_counts_beside_advantages_by_step_as_much_as_is_said(advantage, coefficient, added):
    found = more_than_without(step(GROUPS[:1], REWARDS[:1]), Learning(advantage=advantage, outcome_coef=coefficient))
    assert found == [[(added, added), (-added, -added)]]


def more_than_without(batch: RolloutBatch, learn: Learning):
    """What is added to the advantages of the rule, by group, attempt and token; every attempt is one step."""
    batch.groups = [replace(group, attempts=tuple(replace(each, step_lengths=(2,)) for each in group.attempts)) for group in batch.groups]
    plain = replace(batch, token_advantages=[])
    both = advantages_of(batch, learn), advantages_of(plain, replace(learn, outcome_coef=0.0))
    return [
        [tuple(one - other for one, other in zip(*tokens, strict=True)) for tokens in zip(*rows, strict=True)]
        for rows in zip(*both, strict=True)
    ]


def test_entropy_is_estimated_over_all_attempts():
    sure = Attempt.of((1, 2), Completion((3,), (-0.1,), "", "stop", key=0, policy_version=0))
    found = observed([GROUPS[0], Group(Task("2"), (sure, sure))], [REWARDS[0], REWARDS[1]])
    assert found["entropy"] == pytest.approx((4 * 0.5 + 2 * 0.1) / 6)


def test_where_groups_stop_early_what_estimates_the_policy_is_of_first_halves_alone():
    sure = Attempt.of((1, 2), Completion((3,), (-0.1,), "", "length", key=0, policy_version=0))
    groups = [Group(Task("a"), (attempt(10, 5), sure)), Group(Task("b"), (attempt(10, 5), attempt(10, 5), sure, sure))]
    rewards = [[Reward(1.0), Reward(1.0)], [Reward(0.0), Reward(0.0), Reward(1.0), Reward(None)]]
    found = observed(groups, rewards, 2)
    assert (found["score"], found["pass_at_group"], found["truncated"], found["completion_tokens"]) == (0.5, 0.5, 0.25, 7 / 4)
    assert (found["unscored"], found["groups_without_signal"], found["attempts"]) == (1, 1, 6)
    assert "attempts" not in observed(groups, rewards)


def test_metrics_are_those_of_the_last_update():
    assert update_on(Recorder(), step(), Learning(epochs=3))["updates"] == 3.0


def test_settings_reach_the_learner(small, tmp_path, monkeypatch):
    seen = []
    real = Learner.update

    def spy(self, examples, *rest, **options):
        seen.append((self, examples))
        return real(self, examples, *rest, **options)

    monkeypatch.setattr(Learner, "update", spy)
    learn = {"loss": "gspo", "advantage": "grpo", "loss_agg_mode": "seq-mean-token-mean", "clip_low": 0.11, "clip_high": 0.31}
    overrides = {f"learn.{name}": value for name, value in learn.items()} | {"kl_penalty.kl_coef": 0.07}
    overrides |= {"learn.optimizer.lr_scheduler": "linear", "learn.optimizer.decay_steps": 9}
    small(tmp_path / "run", overrides | {"rollout.sampling.temperature": 0.7, "steps": 2})
    learner, examples = next((learner, examples) for learner, examples in reversed(seen) if any(e.policy for e in examples))
    policy, imitate, anchor = learner.streams
    assert policy.loss.func is POLICY_LOSSES["gspo"]
    assert policy.loss.keywords == {"clip_low": 0.11, "clip_high": 0.31}
    assert (policy.loss_agg_mode, policy.constant_tokens, imitate.name, anchor.coefficient) == ("seq-mean-token-mean", 4, "imitate", 0.07)
    assert (learner.temperature, learner.optimizer.decay_steps) == (0.7, 9)
    prompt = next(example.prompt for example in examples if example.policy)
    of_one_prompt = [example.policy[0] for example in examples if example.policy and example.prompt == prompt]
    assert sum(of_one_prompt) == pytest.approx(0, abs=1e-6)
    assert sum(weight**2 for weight in of_one_prompt) / (len(of_one_prompt) - 1) == pytest.approx(1, rel=1e-3)  # divided by the deviation
    warm = seen[0][0]
    assert (warm.temperature, [stream.name for stream in warm.streams]) == (1.0, ["imitate"])
