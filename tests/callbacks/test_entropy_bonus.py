"""The entropy bonus: its coefficient from step to step, and what it does to the loss."""

from types import SimpleNamespace

import pytest
import torch

from etude.callbacks.entropy_bonus import EntropyBonus, EntropyBonusSettings
from etude.errors import UserError
from etude.learn.batches import pack
from etude.learn.example import Example
from etude.learn.learner import BatchSize, Learner, OptimizerSettings, Stream
from etude.learn.logprobs import token_logprobs
from etude.learn.losses.policy import ppo

EXAMPLES = [
    Example((5, 6), (7, 8, 9), policy=(0.5,) * 3, behaviour_logprobs=(-5.0,) * 3),
    Example((5, 6), (7, 9), policy=(-0.5,) * 2, behaviour_logprobs=(-5.0,) * 2),
    Example((4,), (9,), imitate=(1.0,)),
]


def gradient(model, bonus, *, examples=EXAMPLES, **options):
    def loss(outputs, tokens):
        return ppo(outputs, tokens, clip_low=0.2, clip_high=0.2)

    stream = Stream("policy", loss, loss_agg_mode="seq-mean-token-sum-norm", constant_tokens=4)
    learner = Learner(model, OptimizerSettings(max_grad_norm=1e9), [stream], entropy_bonus=bonus, **options)
    learner._step = lambda share: {}
    model.zero_grad()
    metrics = learner.update(examples, BatchSize(3, 6))
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]), metrics


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_the_loss_gets_less_by_the_entropy_of_the_policys_own_tokens(model_of, family):
    model = model_of(family, **({"head_dim": 16} if family == "llama" else {}))
    (with_bonus, metrics), (without, plain) = gradient(model, 0.3), gradient(model, 0.0)
    model.zero_grad()
    (batch,) = pack(EXAMPLES[:2], batch_tokens=100, shares_prefixes=True)
    (token_logprobs(model, batch, entropy_slopes=True).entropy_N.sum() / (3 * 4)).backward()
    entropy = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(with_bonus, without - 0.3 * entropy, atol=1e-6, rtol=1e-4)
    assert entropy.norm() > 0 and metrics["policy_loss"] == plain["policy_loss"]


def test_cutting_into_micro_batches_changes_nothing(model_of):
    model = model_of("llama", head_dim=16)
    whole, _ = gradient(model, 0.3)
    for options in ({"batch_tokens": 1}, {"batch_tokens": 5, "shares_prefixes": False}):
        torch.testing.assert_close(gradient(model, 0.3, **options)[0], whole, atol=1e-6, rtol=1e-4)


def test_a_bonus_raises_entropy(model_of):
    model = model_of("llama", head_dim=16, initializer_range=0.3)
    examples = [Example((5, 6), (7, 8, 9), policy=(0.0,) * 3, behaviour_logprobs=(-5.0,) * 3)]
    learner = Learner(model, OptimizerSettings(learning_rate=1e-3), [Stream("policy", lambda *_: ppo(*_, clip_low=0.2, clip_high=0.2))])
    before = learner.update(examples)["entropy"]
    learner.entropy_bonus = 1.0
    assert [learner.update(examples) for _ in range(3)][-1]["entropy"] > before + 0.01


def test_with_a_target_the_coefficient_rises_below_it_and_falls_above_and_without_one_it_stays():
    bonus = EntropyBonus(EntropyBonusSettings(entropy_coef=0.005, target=0.2, delta=0.005))
    seen = [bonus.after(entropy) for entropy in (0.1, 0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.1, 0.1)]
    assert seen == pytest.approx([0.005, 0.010, 0.015, 0, 0, 0, 0, 0, 0.005])
    without = EntropyBonus(EntropyBonusSettings(entropy_coef=0.02))
    assert [without.after(entropy) for entropy in (0.0, 5.0)] == [0.02] * 2


def test_the_coefficient_of_a_step_reaches_the_learner_and_that_of_the_next_one_a_resumed_run():
    bonus, resumed = (EntropyBonus(EntropyBonusSettings(target=0.2, delta=0.1)) for _ in range(2))
    run = SimpleNamespace(learner=SimpleNamespace(), entropy_of=lambda batch: 0.1)
    bonus.start(run)
    seen = [bonus.before_update(None) | {"learner": run.learner.entropy_bonus} for _ in range(2)]
    assert seen == [{"entropy_bonus/coef": coef, "learner": coef} for coef in (0.0, 0.1)]
    resumed.load_state_dict(bonus.state_dict())
    assert resumed.after(0.1) == bonus.after(0.1) == pytest.approx(0.2)


@pytest.mark.parametrize("wrong", [{"entropy_coef": -0.1}, {"target": 0.0}, {"delta": 0.0}])
def test_wrong_settings_are_told(wrong):
    with pytest.raises(UserError, match=f"entropy_bonus.{next(iter(wrong))} must be"):
        EntropyBonusSettings(**{"entropy_coef": 0.1} | wrong)
    with pytest.raises(UserError, match=r"entropy_bonus is worth nothing: set entropy_bonus.entropy_coef above 0, or entropy_bonus.target"):
        EntropyBonusSettings()
