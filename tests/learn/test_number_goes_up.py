from functools import partial

import pytest

from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.learn.advantages import ADVANTAGES
from etude.learn.example import Example, demonstration
from etude.learn.learner import Learner, OptimizerSettings, Stream
from etude.learn.losses import POLICY_LOSSES, negative_log_likelihood

LETTERS = {"a": b"abcdefghijklmnopqrstuvwxyz", "A": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
"""A prompt that ends in a small letter wants small letters, one that ends in a capital wants capitals."""


def score(completion, wanted):
    return sum(character in wanted for character in completion.text.encode()) / len(completion.tokens)


@pytest.mark.parametrize("loss", POLICY_LOSSES)
def test_practice_raises_the_score(model_of, tokenizer, loss):
    model = model_of("llama", initializer_range=0.1)
    engine = TransformersEngine(model, tokenizer)
    stream = Stream("policy", partial(POLICY_LOSSES[loss], clip_low=0.2, clip_high=0.28))
    learner = Learner(model, OptimizerSettings(learning_rate=1e-2), [stream])
    prompts, wanted = [tokenizer(f"say {kind}")["input_ids"] for kind in LETTERS], list(LETTERS.values())
    means = []
    for step in range(40):
        groups = engine.generate(prompts, num_samples=24, max_new_tokens=4, sampling=Sampling(), seed=step)
        scores = [[score(completion, letters) for completion in group] for group, letters in zip(groups, wanted, strict=True)]
        means.append(sum(map(sum, scores)) / 48)
        learner.update(
            [
                Example(tuple(prompt), c.tokens, policy=(advantage,) * len(c.tokens), behaviour_logprobs=c.logprobs)
                for prompt, group, row in zip(prompts, groups, ADVANTAGES["dr_grpo"](scores), strict=True)
                for c, advantage in zip(group, row, strict=True)
            ]
        )
        engine.sync_weights(learner.updates)
    assert means[0] < 0.3 and sum(means[-3:]) / 3 > 0.8, [round(mean, 2) for mean in means]


def test_imitation_learns_its_demonstrations(model_of, tokenizer):
    model = model_of("llama", initializer_range=0.1)
    pairs = {"one": "eins", "two": "zwei", "three": "drei"}
    encode = [(tokenizer(a)["input_ids"], [*tokenizer(b)["input_ids"], tokenizer.eos_token_id]) for a, b in pairs.items()]
    learner = Learner(model, OptimizerSettings(learning_rate=1e-2), [Stream("imitate", negative_log_likelihood)])
    losses = [learner.update([demonstration(*pair) for pair in encode])["imitate_loss"] for _ in range(40)]
    assert losses[0] > 3 and losses[-1] < 0.1
    answers = TransformersEngine(model, tokenizer).generate([prompt for prompt, _ in encode], max_new_tokens=8, sampling=GREEDY)
    assert [row[0].text for row in answers] == list(pairs.values())
    assert {row[0].finish for row in answers} == {"stop"}
