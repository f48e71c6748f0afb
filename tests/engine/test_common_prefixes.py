"""What prompts have in common is computed once, and each prompt has the logits and the keys and values that it has alone."""

import pytest
import torch

from etude.engine import blocks
from etude.engine.common_prefixes import CommonPrefixes
from etude.engine.transformers import TransformersEngine
from etude.kernels.decoding import kernels_for

pytestmark = pytest.mark.skipif(not kernels_for(torch.device("cpu"), torch.float32), reason="there is no C++ compiler")
SYSTEM = tuple(range(40, 60))
PROMPTS = [
    (*SYSTEM, 70, 71, 72),
    (*SYSTEM, 80, 81),
    (*SYSTEM, 80, 81, 90),
    (*SYSTEM[:12], 100),
    (*SYSTEM[:12], 100),
    (200, 201),
    (*SYSTEM, 70, 71, 72),
    SYSTEM,
]


@pytest.fixture
def shared(model_of, tokenizer, monkeypatch):
    """The forward pass of a small model; `computed` counts the prompt tokens that it was given."""
    made, computed, real = TransformersEngine(model_of("qwen3"), tokenizer)._shared, [], blocks.compute_prompts

    def counted(forward, prompts, *more):
        computed.append(sum(map(len, prompts)))
        return real(forward, prompts, *more)

    monkeypatch.setattr(blocks, "compute_prompts", counted)
    return made, computed


@torch.inference_mode()
def equal_to_alone(shared, prefixes, prompts):
    opened, logits_PV = prefixes.prefill(shared.forward, prompts)
    for place, prompt in enumerate(prompts):
        alone, expected_PV = shared.prefill([prompt])
        torch.testing.assert_close(logits_PV[place], expected_PV[0], atol=1e-5, rtol=1e-5)
        assert opened.length_P[place] == len(prompt)
        tokens_1 = torch.tensor([33])
        own, other = (each.begin(torch.tensor([row]), 2, samples=1) for each, row in ((opened, place), (alone, 0)))
        torch.testing.assert_close(own.next_logits(tokens_1), other.next_logits(tokens_1), atol=1e-5, rtol=1e-5)


def test_prompts_have_what_they_have_alone_and_only_the_rest_of_them_is_computed(shared):
    forward, computed = shared
    prefixes = CommonPrefixes()
    for prompt in PROMPTS:
        equal_to_alone(forward, prefixes, [prompt])
    assert computed[::2] == [
        23,  # nothing is known
        22,  # the second one shows what they have in common
        3,  # after 20 tokens of it
        1,  # a part of what is kept is enough
        1,
        2,
        3,
        1,
    ]
    assert prefixes.num_copied == sum(map(len, PROMPTS)) - sum(computed[::2])


def test_prompts_that_come_together_are_compared_too(shared):
    forward, _ = shared
    prefixes = CommonPrefixes()
    equal_to_alone(forward, prefixes, PROMPTS[:3])
    assert prefixes.num_copied == 0
    equal_to_alone(forward, prefixes, [(*SYSTEM, 99), (5, 6), (*SYSTEM, 80, 81, 91)])
    assert prefixes.num_copied == 20 + 22


def test_the_beginning_that_was_used_longest_ago_makes_room_and_none_is_kept_without_room(shared):
    forward, _ = shared
    prefixes, others = CommonPrefixes(most=2), [tuple(range(start, start + 15)) for start in (30, 90, 150)]
    for prompt in (others[0], others[0], others[1], others[1], others[0], others[2], others[2]):
        equal_to_alone(forward, prefixes, [prompt])
    assert [kept[0] for kept in prefixes._kept] == [30, 150]
    never = CommonPrefixes(most=0)
    for _ in range(3):
        equal_to_alone(forward, never, [others[0]])
    assert never.num_copied == 0
