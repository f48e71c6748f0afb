"""Replay: which pieces, how they weigh, and the divergence that needs no labels."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from etude.callbacks.replay import ReplayCallback, ReplaySettings
from etude.errors import UserError
from etude.learn.example import Example, demonstration
from etude.learn.learner import BatchSize, Learner, OptimizerSettings, Stream
from etude.learn.logprobs import Outputs
from etude.learn.losses import negative_log_likelihood
from etude.learn.losses.tokens import Tokens
from etude.learn.replay import Replay, divergence, draw

PIECES = [Example((5,), (6, 7, 8)), Example((9,), (10, 11)), Example((12, 13), (14, 15, 16, 17))]
RATIO = 0.5


def replay_stream(nll_coef=1.0, kl_coef=0.0, *, loss_agg_mode="token-mean", longest=1):
    """The stream that the callback adds to a learner whose own tokens are averaged so."""
    callback, streams = ReplayCallback(ReplaySettings(path=["x"], ratio=RATIO, nll_coef=nll_coef, kl_coef=kl_coef)), []
    callback.pieces = PIECES

    def add_stream(name, loss, *, loss_agg_mode):
        streams.append(Stream(name, loss, 1.0, loss_agg_mode, longest))

    learn, learner = SimpleNamespace(loss_agg_mode=loss_agg_mode), SimpleNamespace(with_reference=list)
    run = SimpleNamespace(seed=0, settings=SimpleNamespace(learn=learn), learner=learner)
    run.add_stream, run.add_reference = add_stream, lambda: None
    callback.start(run)
    (stream,) = streams
    return stream


def test_pieces_come_in_an_order_of_their_own_and_all_of_them_before_one_comes_again():
    drawn = draw(PIECES, 23, key=7)
    assert sum(len(piece.completion) for piece in drawn) == 23 and all(set(piece.replay) == {1.0} for piece in drawn)
    assert {piece.prompt for piece in drawn[:3]} == {piece.prompt for piece in drawn[3:6]} == {piece.prompt for piece in PIECES}
    assert drawn == draw(PIECES, 23, key=7) != draw(PIECES, 23, key=8)
    assert draw(PIECES, 0, key=7) == []
    assert [len(piece.completion) for piece in draw(PIECES[:1], 4, key=0)] == [3, 1]


def test_every_update_of_a_step_draws_its_own_by_the_ratio_of_just_now():
    replay = Replay(PIECES, RATIO, 0.0, seed=3)
    replay.begin(1)
    first, second = replay.pull(20), replay.pull(8)
    assert [sum(len(each.completion) for each in drawn) for drawn in (first, second)] == [10, 4] and replay.tokens == 14
    again = Replay(PIECES, RATIO, 0.0, seed=3)
    again.begin(1)
    assert (again.pull(20), again.pull(8)) == (first, second)
    replay.begin(2, factor=2.0)
    assert sum(len(each.completion) for each in replay.pull(20)) == 20 == replay.tokens


@pytest.mark.parametrize(
    ("loss_agg_mode", "own"), [("token-mean", 1.0), ("seq-mean-token-mean", 1.0), ("seq-mean-token-sum-norm", 20 / 32)]
)
def test_a_replayed_token_has_the_share_of_an_own_token_and_is_not_counted_in_the_batch(model_of, loss_agg_mode, own):
    stream, seen = replay_stream(loss_agg_mode=loss_agg_mode, longest=16), []

    def loss(outputs, tokens):
        seen.append(float(tokens.shares_N.sum()))
        return stream.loss(outputs, tokens)

    learner = Learner(model_of("llama"), OptimizerSettings(), [Stream("replay", loss, 1.0, stream.loss_agg_mode, stream.constant_tokens)])
    metrics = learner.update(draw(PIECES, 10, key=1), BatchSize(2, 20))
    assert sum(seen) == pytest.approx(0.5 * own)  # the ratio times what all own tokens have
    assert metrics["replay_loss"] == pytest.approx(0.5 * own * metrics["replay_nats"], rel=1e-5)


def test_replay_is_added_to_the_gradient_of_practice_and_changes_nothing_of_it(model_of):
    """The gradient of both is the sum of the gradient of each, token for token."""
    shown, replayed, size = [demonstration((5, 6), (7, 8)), demonstration((4,), (9,))], draw(PIECES, 5, key=1), BatchSize(2, 3)

    def gradient(examples):
        learner = Learner(model_of("llama"), OptimizerSettings(), [Stream("imitate", negative_log_likelihood), replay_stream()])
        learner._step = lambda share: {}
        learner.update(examples, size)
        return torch.cat([parameter.grad.flatten() for parameter in learner.parameters])

    assert torch.allclose(gradient([*shown, *replayed]), gradient(shown) + gradient(replayed), atol=1e-6)


def test_the_divergence_is_that_of_this_token_or_another_in_value_and_gradient():
    p, q = 0.5, 0.8
    start, now = torch.tensor([math.log(p), -1.0, -9.0]), torch.tensor([math.log(q), -1.0, -9.0], requires_grad=True)
    found = divergence(start, now)
    assert found[0].item() == pytest.approx(0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2))
    assert found[1:].tolist() == [0.0, 0.0]
    found.sum().backward()
    assert now.grad.tolist() == pytest.approx([(q - p) / (1 - q), 0.0, 0.0], abs=1e-6)


def test_the_divergence_pulls_back_what_the_model_has_become_sure_of():
    for now in (-1e-5, -2e-7, 0.0):
        sure = torch.tensor([now], requires_grad=True)
        divergence(torch.tensor([math.log(0.5)]), sure).sum().backward()
        assert sure.grad.item() == pytest.approx(0.5 / max(-now, 1e-6), rel=1e-3)
    assert divergence(torch.zeros(1), torch.zeros(1)).item() == 0.0


def test_the_divergence_is_below_that_of_the_whole_vocabulary():
    start, now = (torch.randn(50, 7, generator=torch.Generator().manual_seed(seed)).log_softmax(-1) for seed in (1, 2))
    whole = (start.exp() * (start - now)).sum(-1)
    for token in range(7):
        found = divergence(start[:, token], now[:, token])
        assert (found >= -1e-6).all() and (found <= whole + 1e-6).all()


def test_an_anchor_on_replay_brings_a_model_back_to_what_it_began_as(model_of):
    start = model_of("llama")
    model = copy.deepcopy(start)
    with torch.no_grad():
        model.lm_head.weight.add_(0.3 * torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0)))
    learner = Learner(model, OptimizerSettings(learning_rate=3e-3), [replay_stream(nll_coef=0.0, kl_coef=1.0)], reference=start)
    replay, seen = Replay(PIECES, 1.0, 1.0, 0, learner.with_reference), []
    for step in range(1, 13):
        replay.begin(step)
        seen.append(learner.update(replay.pull(9), BatchSize(1, 9))["replay_divergence"])
    assert seen[-1] < 0.3 * seen[0]


def test_the_loss_without_an_anchor_is_plain_likelihood():
    tokens = Tokens(*(torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5])), torch.tensor([0, 0]), torch.zeros(2), torch.zeros(2))
    loss, metrics = replay_stream().loss(Outputs(torch.tensor([-1.0, -3.0]), torch.zeros(2)), tokens)
    assert float(loss) == 2.0 and metrics.keys() == {"replay_nats"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"path": []}, r"replay\.path names no file: name one, or leave replay out"),
        ({"ratio": 0.0}, r"replay\.ratio must be above 0, got 0\.0: leave replay out for none"),
        ({"nll_coef": -1.0}, r"replay\.nll_coef must be 0 \(off\) or more, got -1\.0"),
        ({"nll_coef": 0.0}, r"replay learns nothing with replay\.nll_coef and replay\.kl_coef both 0: set one of them above 0"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        ReplaySettings(**{"path": ["x"], "ratio": 1.0} | wrong)
