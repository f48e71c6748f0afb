"""Training examples of judged groups, as an update makes them."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from etude.callbacks.kl_penalty import KLPenalty, KLPenaltySettings
from etude.learn.example import Example
from etude.learn.training_examples import in_a_stream, policy_gradient_examples, token_advantages
from etude.rollouts.attempts import Attempt, Group, Source
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward

Examples = list[list[Example]]


def attempt_of(*steps: Sequence[int], prompt: tuple[int, ...] = (1,)) -> Attempt:
    """An attempt that was sampled in these steps."""
    own = tuple(token for step in steps for token in step)
    sources = (Source.GIVEN,) * len(prompt) + (Source.OWN,) * len(own)
    return Attempt(prompt + own, sources, (-1.0,) * len(own), "", "stop", 0, 0, step_lengths=tuple(map(len, steps)))


def examples_of(
    groups: Sequence[Group],
    rewards: Sequence[Sequence[Reward]],
    advantage: str = "dr_grpo",
    *,
    turn_discount: float = 1.0,
    masked: Sequence[Sequence[bool]] | None = None,
    on_examples: Callable[[Examples], Examples] = lambda found: found,
    **how: Any,
) -> Examples:
    """What the policy gradient learns from, by group; `how` are further arguments of `token_advantages`."""
    advantages = token_advantages(groups, rewards, advantage, turn_discount, **how)
    return in_a_stream(on_examples(policy_gradient_examples(groups, rewards, advantages, turn_discount=turn_discount, masked=masked)))


def anchored(examples: Examples) -> Examples:
    """What the callback `kl_penalty` makes of examples, without a model to compare with."""
    penalty = KLPenalty(KLPenaltySettings(kl_coef=1.0))
    penalty.learner = SimpleNamespace(with_reference=list)  # type: ignore[assignment]
    return penalty.on_examples(RolloutBatch(1, [], [], {}, {}), examples)
