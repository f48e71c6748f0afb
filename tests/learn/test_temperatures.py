"""Each stream is read at a temperature of its own: what was sampled at that of sampling, what is imitated at 1."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch

from etude.kernels.update import kernels_for
from etude.learn.example import Example
from etude.learn.fused import FusedPass
from etude.learn.learner import BatchSize, Learner, OptimizerSettings, Stream
from etude.learn.losses import POLICY_LOSSES, kl, negative_log_likelihood
from etude.learn.losses.preference import PreferenceLoss
from etude.learn.pairs import Pair
from etude.learn.preference import Preferring
from etude.learn.replay import divergence, replay_loss
from etude.learn.sequences import LIKELIHOOD
from etude.models.adapters import add_lora
from etude.models.lora_settings import LoRA

HOT = 0.6
STREAMS = [
    Stream("policy", partial(POLICY_LOSSES["ppo"], clip_low=0.2, clip_high=0.28)),
    Stream("imitate", negative_log_likelihood),
    Stream("anchor", kl, coefficient=0.3),
    Stream("replay", replay_loss(imitate=1.0, kl_coef=0.5)),
    replace(LIKELIHOOD, loss_agg_mode="token-mean"),
]
PROMPT = (9, 8, 7)


def examples():
    """Completions in one stream each and in several, some with the same tokens in different streams."""
    generator = torch.Generator().manual_seed(0)

    def numbers(n, around=0.0):
        return tuple((around + 0.3 * torch.randn(n, generator=generator)).tolist())

    sampled = {"policy": numbers(4), "anchor": numbers(4, 1), "behaviour_logprobs": numbers(4, -5), "reference_logprobs": numbers(4, -5)}
    return [
        Example(PROMPT, (30, 31, 32, 33), **sampled),
        Example(PROMPT, (30, 31, 40, 41), imitate=numbers(4, 1)),
        Example(PROMPT, (30, 31, 50), likelihood=numbers(3)),
        Example(PROMPT, (30, 31, 32, 33), replay=numbers(4, 1), reference_logprobs=numbers(4, -5)),
        Example((5, 6), (60, 61, 62, 63), **{name: numbers(4, -5 * ("logprobs" in name)) for name in sampled}, imitate=numbers(4, 1)),
    ]


def by_hand(model, shown):
    """The sum of all streams' losses with token shares, each completion read alone from its full logits."""
    tokens, total = sum(len(each.completion) for each in shown), 0.0
    for each in shown:
        line = torch.tensor([[*each.prompt, *each.completion]])
        logits_TV = model(input_ids=line).logits[0, len(each.prompt) - 1 : -1]

        def read(temperature, logits_TV=logits_TV, each=each):
            return (logits_TV / temperature).log_softmax(-1).gather(-1, torch.tensor(each.completion)[:, None])[:, 0]

        hot_T, own_T = read(HOT), read(1.0)
        weights = {name: torch.tensor(getattr(each, name) or (0.0,) * len(own_T)) for name in (s.name for s in STREAMS)}
        behaviour_T, reference_T = (
            torch.tensor(each.behaviour_logprobs or own_T.tolist()),
            torch.tensor(each.reference_logprobs or own_T.tolist()),
        )
        ratio_T = (hot_T - behaviour_T).exp()
        surrogate_T = torch.minimum(ratio_T * weights["policy"], ratio_T.clamp(0.8, 1.28) * weights["policy"])
        gap_T = reference_T - hot_T
        replayed_T = -own_T + 0.5 * divergence(reference_T, own_T)
        total = total - surrogate_T.sum() + 0.3 * (weights["anchor"] * ratio_T * (gap_T.exp() - gap_T - 1)).sum()
        total = total - ((weights["imitate"] + weights["likelihood"]) * own_T).sum() + (weights["replay"] * replayed_T).sum()
    return total / tokens


def adapted(model):
    model = add_lora(model, LoRA(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    return model


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("fused", {}),
        ("fused", {"batch_tokens": 4}),
        ("packed", {}),
        ("packed", {"batch_tokens": 4}),
        ("plain", {"shares_prefixes": False}),
        ("window", {}),
        ("adapters", {}),
    ],
)
def test_every_stream_has_its_own_temperature_in_value_and_gradient(model_of, kind, options):
    if kind == "fused" and not kernels_for(torch.device("cpu"), torch.float32):
        pytest.skip("there is no C++ compiler")
    model = model_of("mistral-window") if kind == "window" else model_of("llama", head_dim=16 if kind == "fused" else 8)
    model = adapted(model) if kind == "adapters" else model
    assert bool(FusedPass.of(model, torch.float32)) == (kind == "fused")
    shown = examples()
    expected = by_hand(model, shown)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wanted = torch.autograd.grad(expected, parameters)
    learner = Learner(model, OptimizerSettings(), STREAMS, temperature=HOT, **options)
    learner._step = lambda share: {}
    metrics = learner.update(shown, BatchSize.of(shown))
    coefficients = {stream.name: stream.coefficient for stream in STREAMS}
    found = sum(coefficients[name] * metrics[f"{name}_loss"] for name in coefficients)
    assert found == pytest.approx(expected.item(), rel=1e-5)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert (parameter.grad - gradient).norm() <= 2e-5 * gradient.norm() + 1e-6


def test_log_probs_are_read_at_the_temperature_of_the_streams_that_want_them(llama):
    shown = examples()
    hot, plain = (Learner(llama, OptimizerSettings(), [], temperature=temperature) for temperature in (HOT, 1.0))
    at_hot, at_one = hot.logprobs(shown), plain.logprobs(shown)
    bare = [Example(each.prompt, each.completion) for each in shown]
    assert [mine == its for mine, its in zip(at_hot, at_one, strict=True)] == [False, True, True, True, False]
    assert hot.logprobs(bare) == at_one


def test_what_answers_are_preferred_by_does_not_depend_on_the_temperature_of_sampling(model_of):
    pairs = [Pair(PROMPT, (20, 21), (22,)), Pair((4, 5), (23,), (24, 25))]
    found = []
    for temperature in (1.0, HOT):
        model, how = model_of("llama"), PreferenceLoss("kto")
        learner = Learner(model, OptimizerSettings(learning_rate=1e-3), [LIKELIHOOD], reference=deepcopy(model), temperature=temperature)
        found.append([Preferring(learner, pairs, how).update(pairs) for _ in range(3)])
    assert found[0] == found[1]
