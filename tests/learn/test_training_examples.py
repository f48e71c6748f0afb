from dataclasses import replace

import torch
from small_examples import examples_of

from etude.engine.completion import Completion
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.learn.batches import pack
from etude.learn.logprobs import token_logprobs
from etude.learn.training_examples import imitation_examples
from etude.rollouts.attempts import HINTED, Attempt, Group
from etude.rollouts.samples import sample_groups
from etude.tasks.reward import Reward
from etude.tasks.task import Task


def group(*scores: float | None) -> tuple[Group, list[Reward]]:
    attempts = tuple(Attempt.of((1, 2), Completion((3, 4), (-0.5, -0.7), "x", "stop", i, 0)) for i in range(len(scores)))
    return Group(Task("q", "a"), attempts), [Reward(score) for score in scores]


def test_a_group_without_signal_teaches_nothing():
    mixed, equal = group(1.0, 0.0), group(1.0, 1.0)
    examples, none = examples_of([mixed[0], equal[0]], [mixed[1], equal[1]])
    assert [example.policy for example in examples] == [(0.5, 0.5), (-0.5, -0.5)] and none == []
    assert imitation_examples([equal[0]], [equal[1]]) == [[]]


def test_a_group_in_which_no_set_of_attempts_is_better_than_another_teaches_nothing():
    one_wrong, half = group(1.0, 1.0, 1.0, 0.0), group(1.0, 1.0, 0.0, 0.0)
    none, examples = examples_of([one_wrong[0], half[0]], [one_wrong[1], half[1]], "pass_at_k", pass_k=2)
    assert none == [] and len(examples) == 4


def test_imitation_weighs_every_group_alike():
    mixed = group(1.0, 0.0, None, 1.0)
    (examples,) = imitation_examples([mixed[0]], [mixed[1]])
    assert [example.imitate for example in examples] == [(2.0, 2.0), (2.0, 2.0)]


def test_groups_whose_attempts_are_all_right_are_imitated_where_that_is_asked_for():
    equal = group(1.0, 1.0)
    (examples,) = imitation_examples([equal[0]], [equal[1]], include_solved_groups=True)
    assert [example.imitate for example in examples] == [(1.0, 1.0), (1.0, 1.0)]


def test_attempts_that_saw_the_answer_do_not_make_their_task_weigh_more():
    alone, rewards = group(0.0, 0.0, 1.0, 1.0)
    attempts = tuple(replace(attempt, view=HINTED) if place >= 2 else attempt for place, attempt in enumerate(alone.attempts))
    (examples,) = imitation_examples([Group(alone.task, attempts)], [rewards])
    assert [example.imitate for example in examples] == [(1.0, 1.0), (1.0, 1.0)]  # two attempts of its own, shared by two right ones


def test_an_advantage_that_is_added_counts_beside_that_of_the_rewards():
    mixed, rewards = group(1.0, 0.0)
    (examples,) = examples_of([mixed], [rewards], added=[[(0.25, 0.0), (-1.0, 1.0)]])
    assert [example.policy for example in examples] == [(0.75, 0.5), (-1.5, 0.5)]


def test_equal_tasks_in_a_batch_get_attempts_of_their_own(llama, tokenizer):
    task, prompt = Task("q", "a"), (5, 6, 7)
    found = sample_groups(
        TransformersEngine(llama, tokenizer),
        [task, task],
        [prompt, prompt],
        num_samples=4,
        max_new_tokens=6,
        sampling=Sampling(),
        names=(0, 1),
    )
    assert [a.tokens for a in found[0].attempts] != [a.tokens for a in found[1].attempts]


def test_log_probs_are_those_of_the_temperature_that_sampled(llama, tokenizer):
    (found,) = TransformersEngine(llama, tokenizer).generate(
        [(5, 6, 7)], num_samples=4, max_new_tokens=6, sampling=Sampling(temperature=0.6), seed=3
    )
    groups = [Group(Task("q", "a"), tuple(Attempt.of((5, 6, 7), completion) for completion in found))]
    (examples,) = examples_of(groups, [[Reward(float(i == 0)) for i in range(4)]])
    (batch,) = pack(examples, batch_tokens=512, shares_prefixes=True, temperatures=[0.6] * len(examples))
    outputs = token_logprobs(llama, batch)
    behaviour = torch.tensor([value for example in examples for value in example.behaviour_logprobs])
    by_example = outputs.logprobs_N.detach()[batch.example_N.argsort(stable=True)]
    torch.testing.assert_close(by_example, behaviour, atol=1e-4, rtol=0)


def test_attempts_from_the_verifiers_threshold_on_are_imitated_and_rewards_of_any_range_earn_advantages():
    own, _ = group(-5.0, 14.0, 15.0, 30.0)
    rewards = [Reward(score, right_at=15.0) for score in (-5.0, 14.0, 15.0, 30.0)]
    (examples,) = imitation_examples([own], [rewards])
    assert [example.imitate for example in examples] == [(2.0, 2.0), (2.0, 2.0)]
    (examples,) = examples_of([own], [rewards])
    assert [example.policy[0] for example in examples] == [-18.5, 0.5, 1.5, 16.5]
