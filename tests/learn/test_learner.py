import math
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch

from etude.errors import UserError
from etude.learn.example import Example, demonstration
from etude.learn.learner import BatchSize, Learner, OptimizerSettings, Stream
from etude.learn.losses import POLICY_LOSSES, kl, negative_log_likelihood
from etude.learn.settings import Learning
from etude.models.adapters import add_lora
from etude.models.lora_settings import LoRA

PLAIN = OptimizerSettings(learning_rate=1e-2, max_grad_norm=1e9)
IMITATE = Stream("imitate", negative_log_likelihood)
ANCHOR = Stream("anchor", kl, coefficient=0.3)
GROUPS = [(7, [3, 1, 8]), (2, [5, 5]), (12, [2, 2, 9])]


def policy_stream(loss="ppo", **options):
    return Stream("policy", partial(POLICY_LOSSES[loss], clip_low=0.2, clip_high=0.28), **options)


def random_examples(model, groups=GROUPS, seed=0, zero_advantage_groups=()):
    """Examples in all three streams, with behaviour and reference log-probs near the model's."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for number, (prompt_length, lengths) in enumerate(groups):
        prompt = torch.randint(4, 260, (prompt_length,), generator=generator).tolist()
        for n in lengths:
            advantage = float(torch.randn(1, generator=generator)) * (number not in zero_advantage_groups)
            completion = torch.randint(4, 260, (n,), generator=generator).tolist()
            weights = tuple(torch.rand(n, generator=generator).tolist())
            examples.append(
                Example(
                    tuple(prompt), tuple(completion), policy=(advantage,) * n, imitate=weights, anchor=weights, behaviour_logprobs=weights
                )
            )
    logprobs = Learner(model, PLAIN, []).logprobs(examples)

    def near(values):
        return tuple(value + 0.2 * float(torch.randn(1, generator=generator)) for value in values)

    return [replace(e, behaviour_logprobs=near(p), reference_logprobs=near(p)) for e, p in zip(examples, logprobs, strict=True)]


def gradients(model, examples, streams, size=None, **options):
    """The gradient of every parameter that `update` would use, and its metrics; the weights stay as they are."""
    learner = Learner(model, PLAIN, streams, **options)
    learner._step = lambda share: {}
    model.zero_grad()
    metrics = learner.update(examples, size)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, metrics


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=tolerance * max(1.0, value.abs().max().item())), name


@pytest.mark.parametrize("loss_agg_mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"])
@pytest.mark.parametrize("loss", POLICY_LOSSES)
def test_cutting_into_micro_batches_changes_nothing(llama, loss, loss_agg_mode):
    examples = random_examples(llama)
    streams = [policy_stream(loss, loss_agg_mode=loss_agg_mode, constant_tokens=10), IMITATE, ANCHOR]
    whole, metrics = gradients(llama, examples, streams, batch_tokens=10_000)
    for batch_tokens in (1, 25, 60):
        cut, cut_metrics = gradients(llama, examples, streams, batch_tokens=batch_tokens)
        assert_close(cut, whole)
        assert cut_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-6)
    assert_close(gradients(llama, examples, streams, batch_tokens=10_000, shares_prefixes=False)[0], whole)


def test_the_order_of_examples_changes_nothing(llama):
    examples, streams = random_examples(llama), [policy_stream("gspo"), IMITATE]
    assert_close(gradients(llama, examples[::-1], streams)[0], gradients(llama, examples, streams)[0])


@pytest.mark.parametrize("loss_agg_mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"])
@pytest.mark.parametrize("loss", POLICY_LOSSES)
def test_dropping_groups_without_advantages_changes_nothing(llama, loss, loss_agg_mode):
    examples = random_examples(llama, zero_advantage_groups=[1])
    kept = [example for example in examples if any(example.policy)]
    assert len(kept) == len(examples) - 2
    streams = [policy_stream(loss, loss_agg_mode=loss_agg_mode, constant_tokens=10)]
    whole, _ = gradients(llama, examples, streams)
    assert_close(gradients(llama, kept, streams, size=BatchSize.of(examples))[0], whole)


def test_an_anchor_without_a_reference_is_refused(llama):
    with pytest.raises(ValueError, match="needs a reference"):
        Learner(llama, PLAIN, [ANCHOR]).with_reference(random_examples(llama))
    examples = [replace(example, reference_logprobs=None) for example in random_examples(llama)]
    with pytest.raises(ValueError, match="anchor stream needs reference_logprobs"):
        gradients(llama, examples, [ANCHOR])


@pytest.mark.parametrize("family", ["llama", "mistral-window"])
def test_imitation_is_transformers_own_loss(model_of, family):
    model = model_of(family)
    examples = [demonstration(e.prompt, e.completion) for e in random_examples(model)]
    found, metrics = gradients(model, examples, [IMITATE])
    width = max(len(e.prompt) + len(e.completion) for e in examples)
    tokens_BT, labels_BT = torch.zeros(2, len(examples), width, dtype=torch.long).unbind(0)
    mask_BT, labels_BT = torch.zeros_like(tokens_BT), labels_BT - 100
    for row, example in enumerate(examples):
        line = torch.tensor([*example.prompt, *example.completion])
        tokens_BT[row, : len(line)], mask_BT[row, : len(line)] = line, 1
        labels_BT[row, len(example.prompt) : len(line)] = line[len(example.prompt) :]
    model.zero_grad()
    loss = model(input_ids=tokens_BT, attention_mask=mask_BT, labels=labels_BT).loss
    loss.backward()
    assert metrics["imitate_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert_close(found, {name: p.grad for name, p in model.named_parameters()})


@pytest.mark.parametrize("loss", ["ppo", "gspo", "cispo"])
def test_recomputed_ratios_give_the_exact_policy_gradient(llama, loss):
    """Behaviour log-probs that are rounded otherwise than the learner's move it away, gspo's the farthest."""
    dice = torch.Generator().manual_seed(0)
    examples, clip = [replace(e, imitate=None, anchor=None) for e in random_examples(llama)], Learning(loss=loss).clip
    now = Learner(llama, PLAIN, []).logprobs(examples)
    rounded = [
        replace(e, behaviour_logprobs=tuple(value + 0.03 * float(torch.randn(1, generator=dice)) for value in values))
        for e, values in zip(examples, now, strict=True)
    ]
    stream = Stream("policy", partial(POLICY_LOSSES[loss], clip_low=clip[0], clip_high=clip[1]))
    as_recorded, metrics = gradients(llama, rounded, [stream])
    found, recomputed_metrics = gradients(llama, Learner(llama, PLAIN, []).with_old_logprobs(rounded), [stream])
    llama.zero_grad()
    for e in examples:
        completion = torch.tensor(e.completion)
        logits_TV = llama(input_ids=torch.tensor([e.prompt + e.completion])).logits[0, -len(completion) - 1 : -1]
        logprobs_T = logits_TV.log_softmax(-1).gather(1, completion[:, None])[:, 0]
        (-(torch.tensor(e.policy) * logprobs_T).sum() / BatchSize.of(examples).tokens).backward()
    exact = {name: p.grad for name, p in llama.named_parameters()}
    assert_close(found, exact)
    assert recomputed_metrics["clip_share"] == 0 and (metrics["clip_share"] > 0.3) == (loss == "gspo")
    assert distance(as_recorded, exact) > (0.3 if loss == "gspo" else 0.003)


def distance(found, exact):
    """The length of the difference of two gradients, as a share of the second's."""
    squares = sum(float((found[name] - value).square().sum()) for name, value in exact.items())
    return math.sqrt(squares / sum(float(value.square().sum()) for value in exact.values()))


def test_an_empty_update_changes_nothing(llama):
    learner, before = Learner(llama, PLAIN, [IMITATE]), weights_of(llama)
    assert learner.update([]) == {}
    assert learner.updates == 0 and not llama.training
    assert all(torch.equal(value, before[name]) for name, value in llama.state_dict().items())


@pytest.mark.parametrize("lora", [LoRA(), LoRA(rank=2)], ids=["all weights", "adapters"])
def test_a_saved_learner_goes_on_to_the_same_weights(model_of, lora):
    def fresh():
        model = add_lora(model_of("llama"), lora, seed=3)
        return model, Learner(
            model, OptimizerSettings(learning_rate=1e-2, warmup_steps=4, lr_scheduler="linear", decay_steps=9), [IMITATE, ANCHOR]
        )

    model, learner = fresh()
    examples = random_examples(model)
    for _ in range(2):
        learner.update(examples)
    saved_weights, saved_state = weights_of(model), {name: value.clone() for name, value in learner.state_dict().items()}
    for _ in range(3):
        learner.update(examples)

    other, resumed = fresh()
    other.load_state_dict(saved_weights)
    resumed.load_state_dict(saved_state)
    for _ in range(3):
        resumed.update(examples)
    assert resumed.updates == learner.updates == 5
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


def test_the_reference_of_a_model_with_adapters_is_its_base(model_of):
    base, model = model_of("llama"), add_lora(model_of("llama"), LoRA(rank=2), seed=0)
    examples = random_examples(base)
    learner = Learner(model, PLAIN, [IMITATE])
    expected = Learner(base, PLAIN, []).logprobs(examples)
    learner.update(examples)
    moved, reference = learner.logprobs(examples), learner.logprobs(examples, reference=True)
    for a, b, c in zip(expected, reference, moved, strict=True):
        assert b == pytest.approx(a, abs=1e-5) and c != pytest.approx(a, abs=1e-3)
    assert [e.reference_logprobs for e in learner.with_reference(examples)] == reference


def test_the_reference_may_be_a_frozen_model_of_its_own(model_of):
    model, frozen = model_of("llama"), model_of("llama", seed=1)
    learner = Learner(model, PLAIN, [IMITATE], reference=frozen)
    examples = random_examples(model)
    expected = Learner(frozen, PLAIN, []).logprobs(examples)
    learner.update(examples)
    assert learner.logprobs(examples, reference=True) == expected != learner.logprobs(examples)


def test_adapters_alone_are_trained(model_of):
    model = add_lora(model_of("llama"), LoRA(rank=2), seed=0)
    before = weights_of(model)
    Learner(model, PLAIN, [IMITATE]).update(random_examples(model))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".lora_" in name for name in changed)


def test_the_learning_rate_follows_its_schedule():
    optimizer = OptimizerSettings(learning_rate=0.4, warmup_steps=4, lr_scheduler="linear", decay_steps=8)
    expected = [0.25, 0.5 * 7 / 8, 0.75 * 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0]
    assert [optimizer.rate(step) for step in range(10)] == pytest.approx([0.4 * x for x in expected])
    assert [OptimizerSettings(learning_rate=0.4).rate(step) for step in (0, 5, 500)] == [0.4] * 3
    assert [OptimizerSettings(learning_rate=0.4, warmup_steps=2).rate(step) for step in (0, 1, 2)] == [0.2, 0.4, 0.4]


def test_a_falling_rate_falls_over_all_updates_of_a_run_unless_their_number_is_given():
    line, cosine = (OptimizerSettings(learning_rate=0.4, lr_scheduler=name) for name in ("linear", "cosine"))
    assert [line.over(4).rate(step) for step in range(6)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])
    shares = [1, (2 + math.sqrt(2)) / 4, 1 / 2, (2 - math.sqrt(2)) / 4, 0, 0]  # (1 + cos(pi k / 4)) / 2
    assert [cosine.over(4).rate(step) for step in range(6)] == pytest.approx([0.4 * share for share in shares])
    given = replace(line, decay_steps=2)
    assert given.over(4) == given
    assert OptimizerSettings(learning_rate=0.4).over(4) == OptimizerSettings(learning_rate=0.4)
    with pytest.raises(ValueError, match="needs the number of updates"):
        line.rate(0)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_an_update_uses_its_share_of_the_rate_of_its_step_and_one_step_of_adam(llama, share):
    optimizer = OptimizerSettings(learning_rate=1e-3, warmup_steps=4)
    learner, before = Learner(llama, optimizer, [IMITATE]), weights_of(llama)
    metrics = learner.update(random_examples(llama), rate_share=share)
    assert metrics["learning_rate"] == share * 1e-3 / 4
    moved = max((value - before[name]).abs().max().item() for name, value in llama.state_dict().items())
    assert moved == pytest.approx(share * 1e-3 / 4, rel=1e-2)  # Adam's first step is the rate times the gradient's sign


def test_a_large_gradient_is_scaled_down(llama):
    seen, learner = [], Learner(llama, OptimizerSettings(max_grad_norm=0.01), [IMITATE])
    learner._adam.register_step_pre_hook(lambda *_: seen.append(math.sqrt(sum((p.grad**2).sum().item() for p in llama.parameters()))))
    metrics = learner.update(random_examples(llama))
    assert metrics["gradient_norm"] > 0.1 and seen == [pytest.approx(0.01, rel=1e-3)]


def test_a_gradient_that_is_not_finite_stops_the_run_and_leaves_the_weights(llama):
    learner = Learner(llama, PLAIN, [IMITATE])
    examples = random_examples(llama)
    learner.update(examples)
    before, state = weights_of(llama), deepcopy(learner.state_dict())
    broken = [replace(examples[0], imitate=(math.inf,) * len(examples[0].completion)), *examples[1:]]
    with pytest.raises(UserError, match=r"not finite at update 2 \(learning rate 0.01\)"):
        learner.update(broken)
    assert all(torch.equal(value, before[name]) for name, value in llama.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in learner.state_dict().items())
    assert not llama.training and all(p.grad is None for p in llama.parameters())


def test_half_precision_stays_near_and_keeps_float32_weights(llama):
    examples, streams = random_examples(llama), [policy_stream(), IMITATE]
    full, _ = gradients(llama, examples, streams)
    half, _ = gradients(llama, examples, streams, dtype=torch.bfloat16)
    assert {value.dtype for value in half.values()} == {torch.float32}
    flat = [torch.cat([value.flatten() for value in found.values()]) for found in (full, half)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, "^mine.learning_rate must be above 0, got 0"),
        ({"max_grad_norm": -1}, "^mine.max_grad_norm must be above 0"),
        ({"warmup_steps": -1}, r"^mine.warmup_steps must be 0 \(off\) or more, got -1"),
        ({"lr_scheduler": "linear", "decay_steps": -5}, "^mine.decay_steps must be 1 or more, got -5: leave it out"),
        (
            {"decay_steps": 5},
            "^mine.decay_steps is 5, but mine.lr_scheduler is constant: set it to linear or cosine, or leave decay_steps out",
        ),
        ({"weight_decay": -0.1}, r"^mine.weight_decay must be 0 \(off\) or more"),
    ],
)
def test_optimizer_settings_outside_their_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        OptimizerSettings(**options).check("mine")


def test_a_learner_refuses_an_optimizer_that_can_not_learn(llama):
    with pytest.raises(UserError, match="learning_rate must be above 0"):
        Learner(llama, OptimizerSettings(learning_rate=-1.0), [IMITATE])


def test_dropout_plays_no_part_in_updates(model_of):
    model = model_of("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    examples = random_examples(model)
    found = [gradients(model.train(), examples, [policy_stream(), IMITATE])[0] for _ in range(2)]
    assert_close(found[0], found[1], 1e-9)
    assert not model.training


def test_a_reference_with_adapters_is_taken_with_them(llama):
    adapted = add_lora(llama, LoRA(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    examples = random_examples(adapted)
    own = Learner(adapted, PLAIN, [ANCHOR], reference=deepcopy(adapted))
    assert own.logprobs(examples, reference=True) == own.logprobs(examples)
    assert Learner(adapted, PLAIN, [ANCHOR]).logprobs(examples, reference=True) != own.logprobs(examples)


def test_dropout_of_adapters_is_the_seeds_and_the_updates_and_survives_a_kill(model_of):
    def learner_of(seed):
        torch.manual_seed(len(str(seed)))  # what else was drawn does not matter
        model = add_lora(model_of("llama"), LoRA(rank=2, dropout=0.5), seed=0)
        return Learner(model, PLAIN, [IMITATE], dropout_seed=seed)

    def trained(learner, steps):
        examples = [demonstration((5, 6, 7), (8, 9, 10, 1)), demonstration((11, 12), (13, 14))]
        losses = [learner.update(examples)["imitate_loss"] for _ in range(steps)]
        return losses, {name: value for name, value in weights_of(learner.model).items() if "lora" in name}

    (losses, whole), (plain, without) = (trained(learner_of(seed), 4) for seed in (7, None))
    assert all(map(torch.equal, trained(learner_of(7), 4)[1].values(), whole.values()))
    assert not all(map(torch.equal, without.values(), whole.values()))
    assert losses[0] == plain[0] and losses[1] != plain[1]  # fresh adapters change nothing, whatever they read
    assert not all(map(torch.equal, trained(learner_of(8), 4)[1].values(), whole.values()))
    first, second = learner_of(7), learner_of(7)
    _, half = trained(first, 2)
    second.model.load_state_dict(half, strict=False)
    second.load_state_dict(first.state_dict())
    assert all(map(torch.equal, trained(second, 2)[1].values(), whole.values()))


def test_dropout_of_adapters_leaves_logprobs_alone(model_of):
    model = add_lora(model_of("llama"), LoRA(rank=2, dropout=0.5), seed=0)
    learner = Learner(model, PLAIN, [IMITATE], dropout_seed=7)
    examples = [demonstration((5, 6, 7), (8, 9, 10, 1))]
    learner.update(examples)
    assert learner.logprobs(examples) == learner.logprobs(examples) == Learner(model, PLAIN, []).logprobs(examples)
