"""Attempts asked for in different words: which attempt is asked what, with whose random numbers."""

import pytest

from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.rollouts.prompts import render_prompt
from etude.rollouts.samples import sample_groups
from etude.rollouts.search.settings import Search
from etude.rollouts.settings import RolloutSettings
from etude.rollouts.variants import asked, sample_variously
from etude.tasks.task import Task
from etude.tiny import tiny_model, tiny_tokenizer

TASKS = [Task("repeat a: a", "a"), Task("repeat b after 3: b", "b", instruction="Be brief.")]
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def engine():
    return TransformersEngine(tiny_model(), TOKENIZER)


def sampled(engine, variants, attempts=range(5), done=None):
    prompts = [[render_prompt(TOKENIZER, asked(task, variant)) for variant in variants] for task in TASKS]
    how = {"max_new_tokens": 3, "sampling": Sampling(), "names": (0, 1), "places": [0, 1]}
    return prompts, sample_variously(engine, TASKS, prompts, attempts=attempts, done=done, **how)


def test_attempt_i_is_asked_with_the_ith_variant_around_and_around(engine):
    done = {}
    prompts, groups = sampled(engine, ["", "Be bold.", "Be wild."], done=done.__setitem__)
    for group, own in zip(groups, prompts, strict=True):
        assert [attempt.prompt for attempt in group.attempts] == [own[i % 3] for i in range(5)]
    assert done == dict(enumerate(groups))
    assert TOKENIZER.decode(prompts[1][1]) == "repeat b after 3: b\n\nBe brief.\n\nBe bold.\n"


def test_the_empty_variant_alone_makes_plain_samples(engine):
    prompts, groups = sampled(engine, [""])
    plain = [own[0] for own in prompts]
    assert groups == sample_groups(engine, TASKS, plain, num_samples=5, max_new_tokens=3, sampling=Sampling(), names=(0, 1))


def test_an_attempt_is_the_same_whichever_are_made_beside_it(engine):
    _, groups = sampled(engine, ["", "Be bold."])
    parts = [sampled(engine, ["", "Be bold."], part)[1] for part in (range(1), range(1, 5))]
    for whole, first, second in zip(groups, *parts, strict=True):
        assert [attempt.own_tokens for attempt in whole.attempts] == [a.own_tokens for a in (*first.attempts, *second.attempts)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt_variants": ["a"] * 9}, "rollout.prompt_variants has 9 prompts for rollout.num_samples 8 attempts"),
        ({"prompt_variants": ["a"], "search": Search("mcts")}, "rollout.prompt_variants asks .* which rollout.search.method mcts can't"),
    ],
)
def test_wrong_settings_are_told(wrong, message):
    with pytest.raises(UserError, match=message):
        RolloutSettings(**wrong)
