import pytest
import torch

from etude.callbacks.implicit_reward import ImplicitRewardSettings
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.learn.implicit_reward import ImplicitReward, token_returns, within_task_auc
from etude.learn.learner import OptimizerSettings
from etude.models.adapters import add_lora
from etude.models.lora_settings import LoRA
from etude.rollouts.attempts import Attempt, Group
from etude.tasks.reward import Reward
from etude.tasks.task import Task

HOW = 0.5, OptimizerSettings(learning_rate=1e-2)
"""beta and the optimizer."""


def group(*own):
    completions = [Completion(tokens, (-1.0,) * len(tokens), "", "stop", 0, 0) for tokens in own]
    return Group(Task("?"), tuple(Attempt.of((5, 6), completion) for completion in completions))


GROUPS = [group((7, 8, 9), (7, 10, 11)), group((20, 21), (22, 23, 24), (22, 25))]
REWARDS = [[Reward(1.0), Reward(0.0)], [Reward(0.0), Reward(1.0), Reward(None)]]


def plain_logprobs(model, prompt, own):
    logprobs = model(input_ids=torch.tensor([[*prompt, *own]]), use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(own)[:, None])[:, 0]


def returns(*groups, scores=None):
    """What comes of rewards, where all attempts have a score unless one says otherwise."""
    return token_returns(groups, [[Reward(score) for score in row] for row in scores or [(1.0,) * len(group) for group in groups]])


def test_returns_are_what_was_worked_out_by_hand():
    # the last ones count as 0: of the first attempt 3, 1, 0 (mean 4 / 3), of the second -2, 0 (mean -1); to come: 4, 1, 0 and -2, 0
    found = returns([(3.0, 1.0, 9.0), (-2.0, 8.0)])
    assert found[0][0] == pytest.approx(((4 + 3) / 4, (1 + 2) / 4, 1 / 4))
    assert found[0][1] == pytest.approx(((-2 - 8 / 3) / 4, (-4 / 3) / 4))


def test_rewards_are_divided_by_the_most_of_the_whole_batch_and_what_is_below_1_is_not_blown_up():
    assert returns([(0.3, 0.0), (-0.1, 0.0)])[0] == [pytest.approx((0.4, 0.05)), pytest.approx((-0.4, -0.15))]
    small, large = [(0.5, 0.0), (-0.5, 0.0)], [(4.0, 0.0), (-4.0, 0.0)]
    assert returns(small, large)[0] == [pytest.approx((1.0 / 4, 0.25 / 4)), pytest.approx((-1.0 / 4, -0.25 / 4))]
    assert returns([(0.5, 0.2)], [(0.1, 0.0), (0.2, 0.0)])[0] == [(0.0, 0.0)], "of a lone attempt there is none"
    assert returns([(0.0, 0.0), (0.0,)]) == [[(0.0, 0.0), (0.0,)]]


def test_an_attempt_without_a_score_gets_no_advantage_and_is_compared_with_by_nobody():
    known = [(0.5, 0.0), (-0.5, 0.0)]
    assert returns([*known, (9.0, 0.0)], scores=[(1.0, 0.0, None)])[0] == [*returns(known)[0], (0.0, 0.0)]
    assert returns(known, scores=[(1.0, None)]) == [[(0.0, 0.0), (0.0, 0.0)]] == returns(known, scores=[(None, None)])


def test_an_update_has_the_gradient_of_the_cross_entropy_and_leaves_unscored_attempts_out(model_of):
    implicit, plain = ImplicitReward(model_of("llama"), *HOW), model_of("llama")
    with torch.no_grad():
        for parameter in implicit.learner.model.parameters():
            parameter.mul_(1.05)
        for parameter in plain.parameters():
            parameter.mul_(1.05)
    implicit.learner._step = lambda share: {}
    metrics = implicit.update(GROUPS, REWARDS)
    logits, targets = [], []
    for g, row in zip(GROUPS, REWARDS, strict=True):
        for attempt, reward in zip(g.attempts, row, strict=True):
            if reward.score is not None:
                with torch.no_grad():
                    reference = plain_logprobs(implicit.learner.reference, attempt.prompt, attempt.own_tokens).sum()
                logits.append(0.5 * (plain_logprobs(plain, attempt.prompt, attempt.own_tokens).sum() - reference))
                targets.append(reward.score)
    loss = torch.nn.functional.binary_cross_entropy(torch.stack(logits).sigmoid(), torch.tensor(targets))
    loss.backward()
    assert metrics == {"loss": pytest.approx(loss.item(), rel=1e-4)}
    for ours, theirs in zip(implicit.learner.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_rewards_are_log_ratios_and_learn_to_tell_right_from_wrong(model_of):
    model = model_of("llama")
    implicit = ImplicitReward(model, *HOW)
    assert implicit.rewards(GROUPS) == [[(0.0,) * attempt.num_own_tokens for attempt in g.attempts] for g in GROUPS], "at first"
    losses = [implicit.update(GROUPS, REWARDS)["loss"] for _ in range(8)]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4) and losses[-1] < 0.5
    rewards = implicit.rewards(GROUPS)
    own = GROUPS[1].attempts[1]
    with torch.no_grad():
        ratio = plain_logprobs(implicit.learner.model, own.prompt, own.own_tokens) - plain_logprobs(model, own.prompt, own.own_tokens)
    assert rewards[1][1] == pytest.approx((0.5 * ratio).tolist(), abs=1e-4)
    assert within_task_auc(rewards, REWARDS) == 1.0


def test_with_adapters_its_state_holds_what_is_trained_alone(model_of):
    implicit = ImplicitReward(add_lora(model_of("llama"), LoRA(rank=2), seed=0), *HOW)
    implicit.update(GROUPS, REWARDS)
    state = implicit.state_dict()
    assert all("lora" in name for name in state if name.startswith("m."))
    other = ImplicitReward(add_lora(model_of("llama"), LoRA(rank=2), seed=0), *HOW)
    other.load_state_dict(state)
    assert other.rewards(GROUPS) == implicit.rewards(GROUPS) != [[(0.0,) * 3] * 2]


def test_the_auc_within_tasks_counts_pairs_of_one_task_and_halves_ties():
    token_rewards = [[(0.2,), (0.1,), (0.2,)], [(0.5,), (0.4,)]]
    rewards = [[Reward(1.0), Reward(0.0), Reward(0.0)], [Reward(None), Reward(1.0)]]
    assert within_task_auc(token_rewards, rewards) == 0.75
    assert within_task_auc(token_rewards[1:], rewards[1:]) is None


def test_wrong_settings_are_refused_in_a_sentence():
    with pytest.raises(UserError, match=r"implicit_reward.coef must be above 0, got -1.0: leave implicit_reward out for none"):
        ImplicitRewardSettings(coef=-1.0)
    with pytest.raises(UserError, match=r"implicit_reward.beta must be above 0, got 0.0"):
        ImplicitRewardSettings(coef=1.0, beta=0.0)
