import math

import pytest
import torch
import torch.nn.functional as F

from etude.errors import UserError
from etude.learn.fused import FusedPass
from etude.learn.step_model import Prefixes, StepModel, StepModelSettings, StepTarget
from etude.learn.step_values import in_order
from etude.models.adapters import add_lora
from etude.models.lora_settings import LoRA

PROMPT = (9, 10, 11)
ANSWERS = [
    Prefixes(PROMPT, (20, 21, 22, 23), (0, 2, 4)),
    Prefixes((40,), (41, 0, 42), (1, 3)),
    Prefixes(PROMPT, (20, 21, 30), (2, 0)),
    Prefixes(PROMPT, (), (0,)),
    Prefixes(PROMPT, (20, 21, 0), (3,)),  # begins like others, with the token that stands for what is predicted
]
FAMILIES = ("llama", "qwen2", "qwen3", "gpt2", "lfm2", "mamba", "gemma3", "mistral-window", "qwen3-moe")


def step_model(model, **settings):
    return StepModel(model, StepModelSettings(**settings), batch_tokens=settings.pop("batch_tokens", 2048))


def states_of(found, answers):
    """By answer, in order."""
    own = [None] * len(answers)
    for states_KE, members in found._states(answers):
        parts = states_KE.split([len(answers[member].ends) for member in members])
        for member, part in zip(members, parts, strict=True):
            own[member] = part
    return own


@pytest.mark.parametrize("batch_tokens", [6, 2048])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_beginnings_are_those_of_a_plain_pass(model_of, family, batch_tokens):
    model = model_of(family)
    made = step_model(model)
    made.batch_tokens = batch_tokens
    with torch.no_grad():
        for answer, states in zip(ANSWERS, states_of(made, ANSWERS), strict=True):
            for end, state in zip(answer.ends, states, strict=True):
                tokens = torch.tensor([[*answer.prompt, *answer.tokens[:end]]])
                expected = model.base_model(input_ids=tokens).last_hidden_state[0, -1]
                torch.testing.assert_close(state, expected, atol=2e-5, rtol=1e-4)


def test_adapters_are_read_too(llama):
    adapted = add_lora(llama, LoRA(rank=2), seed=0)
    before = step_model(adapted).values(ANSWERS)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    made = step_model(adapted)
    made.head.load_state_dict({name: torch.ones_like(value) for name, value in made.head.state_dict().items()})
    plain = step_model(adapted.merge_and_unload())
    plain.head.load_state_dict(made.head.state_dict())
    assert before[0] == (0.5, 0.5, 0.5)
    for mine, expected in zip(made.values(ANSWERS), plain.values(ANSWERS), strict=True):
        assert mine == pytest.approx(expected, abs=1e-4)


def test_the_fused_pass_gives_the_values_and_gradients_of_the_modules(model_of, monkeypatch):
    found = []
    for is_fused in (True, False):
        model = model_of("qwen3")
        if is_fused and not FusedPass.of(model, torch.float32):
            pytest.skip("there is no C++ compiler")
        if not is_fused:
            monkeypatch.setattr(FusedPass, "of", staticmethod(lambda model, dtype: None))
        states = torch.cat(states_of(step_model(model), ANSWERS))
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        found.append((states.detach(), {name: own.grad for name, own in model.named_parameters() if own.grad is not None}))
    (states, gradients), (expected, slow) = found
    torch.testing.assert_close(states, expected, atol=2e-5, rtol=1e-4)
    assert gradients.keys() == slow.keys()
    for name, gradient in slow.items():
        assert (gradients[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


def test_every_answer_weighs_the_same_and_within_it_every_beginning(llama):
    """By hand: every V is 1/2, so the loss is log 2, and the bias has the slope 1/2 (1/2 - 1/4) + 1/2 · 1/2 ((1/2 - 1) + (1/2 - 1))."""
    made = step_model(llama)
    step_targets = [StepTarget(Prefixes(PROMPT, (20,), (1,)), (0.25,)), StepTarget(Prefixes(PROMPT, (21, 22), (1, 2)), (1.0, 1.0))]
    (reading,) = made._readings(step_targets)
    loss = made._loss(reading)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert float(made.head.layers[-1].bias.grad) == pytest.approx(0.125 - 0.25)


@pytest.mark.parametrize("hidden", [0, 8])
def test_the_loss_is_the_cross_entropy_with_soft_targets(llama, hidden):
    made = step_model(llama, hidden=hidden)
    with torch.no_grad():
        made.head.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    step_targets = [StepTarget(answer, tuple(0.3 * place for place, _ in enumerate(answer.ends))) for answer in ANSWERS]
    values = made.values(ANSWERS)
    expected = [
        F.binary_cross_entropy(torch.tensor(own), torch.tensor(step_target.targets))
        for own, step_target in zip(values, step_targets, strict=True)
    ]
    made.settings = StepModelSettings(hidden=hidden, epochs=1)
    assert made.update(step_targets)["loss"] == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    assert made.update([]) == {}


def test_steps_that_are_learned_from_again_weigh_as_much_as_the_present_one(llama):
    """Two steps replayed of three: the loss is the mean of those of the last three steps, of which the first had more answers."""
    made = step_model(llama, hidden=4, epochs=1, replay_steps=2, learning_rate=1e-9)  # values hardly move
    with torch.no_grad():
        made.head.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    steps = [[StepTarget(own, (target,) * len(own.ends)) for own in answers] for answers, target in ((ANSWERS, 0.0), (ANSWERS[:1], 1.0))]
    alone, again = [], []
    for step_targets in (steps[0], steps[1], steps[0], steps[1]):
        fresh = step_model(llama, hidden=4, epochs=1)
        fresh.head.load_state_dict(made.head.state_dict())
        alone.append(fresh.update(step_targets)["loss"])
        again.append(made.update(step_targets)["loss"])
    assert again == pytest.approx([sum(own := alone[max(0, place - 2) : place + 1]) / len(own) for place in range(4)], rel=1e-5)
    assert alone[0] != pytest.approx(alone[1], rel=0.1) and len(made.earlier) == 2


@pytest.mark.parametrize(
    "settings", [{"hidden": 0}, {"hidden": 16}, {"hidden": 16, "replay_steps": 4}, {"backbone": "own", "backbone_learning_rate": 1e-3}]
)
def test_it_learns_to_tell_what_decided_an_answer_before_its_end(model_of, settings):
    """An answer is right where its first token is a 7, which nothing behind it shows; others than it learned from are put in order."""
    model, generator = model_of("llama"), torch.Generator().manual_seed(0)

    def answers(number):
        tokens = torch.randint(20, 24, (number, 4), generator=generator)
        tokens[:, 0] = 7 + torch.randint(0, 2, (number,), generator=generator)
        return [(Prefixes(PROMPT, tuple(row), (1, 2, 4)), float(row[0] == 7)) for row in tokens.tolist()]

    before = [parameter.clone() for parameter in model.parameters()]
    made, losses = step_model(model, learning_rate=1e-2, **settings), []
    for _ in range(16):
        losses.append(made.update([StepTarget(own, (score,) * 3) for own, score in answers(64)])["loss"])
    held_out = answers(64)
    values = made.values([own for own, _ in held_out])
    for place in range(3):
        ordered = in_order([(own[place], score) for own, (_, score) in zip(values, held_out, strict=True)])
        assert sum(ordered) / len(ordered) > 0.9
    assert losses[-1] < losses[0]
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))  # the policy is only read


@pytest.mark.parametrize("adapters", [0, 2])
def test_an_own_backbone_comes_back_from_its_state(model_of, adapters):
    policy = add_lora(model_of("llama"), LoRA(rank=adapters), seed=0)
    step_targets = [StepTarget(answer, (1.0,) * len(answer.ends)) for answer in ANSWERS]
    first, second = (step_model(policy, backbone="own", backbone_learning_rate=1e-3) for _ in range(2))
    first.update(step_targets)
    first.observe([1.0, 0.0], [1.0])
    assert first.values(ANSWERS) != second.values(ANSWERS)
    second.load_state_dict(first.state_dict())
    assert first.values(ANSWERS) == second.values(ANSWERS) and first.trust == second.trust == 1.0
    assert first.update(step_targets) == second.update(step_targets) and first.values(ANSWERS) == second.values(ANSWERS)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_half_precision_reads_about_the_same(model_of, family):
    model = model_of(family, initializer_range=0.05)
    full, half = (states_of(StepModel(model, StepModelSettings(), dtype=dtype), ANSWERS) for dtype in (torch.float32, torch.bfloat16))
    for mine, its in zip(full, half, strict=True):
        assert its.dtype == torch.float32 and (mine - its).norm() < 0.05 * mine.norm()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 0}, "step_model.epochs must be at least 1, got 0"),
        ({"hidden": -1}, "step_model.hidden must be at least 0"),
        ({"replay_steps": -1}, "step_model.replay_steps must be at least 0"),
        ({"replay_steps": 4, "backbone": "own"}, "step_model.replay_steps is 4, but the states of an own backbone change"),
        ({"learning_rate": 0.0}, "step_model.learning_rate must be positive"),
        ({"trust": 1.5}, r"step_model.trust must be in \[0, 1\], got 1.5"),
        ({"backbone_learning_rate": 1e-5}, "policy is only read: leave it out, or set the backbone to own"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(settings, said):
    with pytest.raises(UserError, match=said):
        StepModelSettings(**settings)


def test_a_gradient_that_is_not_finite_is_told(llama):
    made = step_model(llama)
    with torch.no_grad():
        made.head.layers[-1].bias.fill_(math.nan)
    with pytest.raises(UserError, match=r"step_model\.learning_rate"):
        made.update([StepTarget(ANSWERS[0], (1.0, 1.0, 1.0))])
