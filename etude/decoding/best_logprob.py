"""The sample of k that the model itself finds likeliest, by the mean log-prob of its tokens, at temperature 1 however it was drawn.

The mean, since a sum prefers short answers. It is the control that tells choosing among samples from joining them. Identity: k = 1 is one
sample.
"""

from etude.decoding.sample_pool import DecodedAnswer, SamplePool


def best_logprob(pool: SamplePool, k: int) -> list[DecodedAnswer]:
    samples = pool.samples(k)
    means = pool.likelihoods([[sample.own_tokens for sample in own] for own in samples])
    return [DecodedAnswer.of(pool.sample(own[found.index(max(found))])) for own, found in zip(samples, means, strict=True)]
