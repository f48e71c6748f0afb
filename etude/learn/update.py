"""Update the policy on a step's attempts: by policy gradient, imitation or preference pairs."""

from collections.abc import Callable, Sequence
from statistics import fmean

from etude.learn.example import Example
from etude.learn.learner import BatchSize, Learner
from etude.learn.pairs import PAIRS
from etude.learn.preference import Preferring
from etude.learn.settings import Learning
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.training_examples import Advantages, imitation_examples, in_a_stream, policy_gradient_examples, token_advantages
from etude.rollouts.batch import RolloutBatch, TokenAdvantages

OnExamples = Callable[[list[list[Example]]], list[list[Example]]]
Extra = Callable[[int], list[Example]]
"""(number of own tokens in an update) → additional examples."""
Update = Callable[[slice], dict[str, float]]
"""Makes one optimizer step on some of a step's groups; a part without examples changes nothing, and has no metrics."""


def update_on(
    learner: Learner, batch: RolloutBatch, learn: Learning, *, on_examples: OnExamples = lambda found: found, extra: Extra = lambda _: []
) -> dict[str, float]:
    """Make all updates of a step and return the metrics of the last one, which has the most drift from the behaviour policy.

    `on_examples` may add streams to the examples; `extra` gives additional examples for each update.
    """
    if learn.reset_to_initial_each_step:
        learner.restart()
    seen: dict[str, float] = {}
    if learn.method == "preference":
        update, seen = _by_pairs(learner, batch, learn)
    else:
        update = _by_examples(learner, batch, learn, on_examples, extra)
    metrics: dict[str, float] = {}
    for _ in range(learn.epochs):
        for part in range(learn.minibatches_per_epoch):
            metrics = update(slice(part, None, learn.minibatches_per_epoch)) or metrics
    return metrics | seen


def advantages_of(batch: RolloutBatch, learn: Learning) -> Advantages:
    """Return the advantage of every own token, by group and attempt: from the shaped rewards, plus the added ones."""
    added = list(batch.token_advantages)
    if learn.outcome_coef and learn.advantage in STEP_ADVANTAGES:
        outcome = token_advantages(batch.groups, batch.rewards, "dr_grpo")
        added.append([[tuple(learn.outcome_coef * value for value in own) for own in row] for row in outcome])
    how = learn.advantage, learn.turn_discount, _sum(added) if added else None, learn.pass_k
    return token_advantages(batch.groups, batch.shaped_rewards, *how)


def _by_examples(learner: Learner, batch: RolloutBatch, learn: Learning, on_examples: OnExamples, extra: Extra) -> Update:
    groups = batch.groups
    if learn.method == "policy_gradient":
        batch.advantages = advantages_of(batch, learn)
        found = policy_gradient_examples(
            groups, batch.shaped_rewards, batch.advantages, turn_discount=learn.turn_discount, masked=batch.masked
        )
    else:
        keeps = learn.include_solved_groups or learn.reset_to_initial_each_step
        found = imitation_examples(groups, batch.shaped_rewards, turn_discount=learn.turn_discount, include_solved_groups=keeps)
    examples = in_a_stream(on_examples(found))
    has_signal = [any(example.policy is not None or example.imitate is not None for example in row) for row in examples]
    prompts = [group.attempts[0].prompt for group in groups]
    distinct = list(dict.fromkeys(prompts))  # all groups, so that dropping some moves none to another part

    def places(part: slice) -> list[int]:
        chosen = set(distinct[part])
        return [place for place, prompt in enumerate(prompts) if prompt in chosen]

    if learn.method == "policy_gradient" and learn.has_recomputed_ratios:
        for number in range(learn.minibatches_per_epoch):  # each part by itself: cut as its update is, it is rounded as there
            mine = places(slice(number, None, learn.minibatches_per_epoch))
            for place, row in zip(mine, _with_old_logprobs(learner, [examples[place] for place in mine]), strict=True):
                examples[place] = row

    def update(part: slice) -> dict[str, float]:
        mine = places(part)
        own_tokens = [attempt.num_own_tokens for place in mine for attempt in groups[place].attempts if attempt.is_sample]
        size = BatchSize(len(own_tokens), sum(own_tokens))  # turns of one attempt add up
        own = [example for place in mine for example in examples[place]]
        beside = extra(size.tokens) if own else []  # in addition to practice, not instead of it
        share = fmean(has_signal[place] for place in mine) if learn.scale_lr_by_informative_groups and mine else 1.0
        return learner.update([*own, *beside], size, rate_share=share)

    return update


def _by_pairs(learner: Learner, batch: RolloutBatch, learn: Learning) -> tuple[Update, dict[str, float]]:
    """Return the update on pairs, and their number as a metric."""
    how = learn.preference
    if how.needs_reference and how.ref_model_sync_steps and batch.step > 1 and (batch.step - 1) % how.ref_model_sync_steps == 0:
        learner.refresh_reference()
    pairs = [PAIRS[how.pairs](group, row, how.pairs_per_task) for group, row in zip(batch.groups, batch.shaped_rewards, strict=True)]
    preferring = Preferring(learner, [pair for own in pairs for pair in own], how)
    return lambda part: preferring.update([pair for own in pairs[part] for pair in own]), {"pairs": sum(map(len, pairs))}


def _with_old_logprobs(learner: Learner, examples: list[list[Example]]) -> list[list[Example]]:
    found = iter(learner.with_old_logprobs([example for row in examples for example in row if example.is_sampled]))
    return [[next(found) if example.is_sampled else example for example in row] for row in examples]


def _sum(parts: Sequence[TokenAdvantages]) -> Advantages:
    return [[tuple(map(sum, zip(*each, strict=True))) for each in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]
