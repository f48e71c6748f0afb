"""Best of k by likelihood: the sample with the highest mean log-prob per token, at temperature 1 for any sampling settings.

It uses the mean, since a sum prefers short answers. This control separates choosing among samples from joining them. Identity: k = 1 is one
sample.
"""

from etude.decoding.sample_pool import DecodedAnswer, SamplePool


def best_logprob(pool: SamplePool, k: int) -> list[DecodedAnswer]:
    """Return the sample with the highest mean log-prob for each question."""
    samples = pool.samples(k)
    means = pool.likelihoods([[sample.own_tokens for sample in own] for own in samples])
    return [DecodedAnswer.of(pool.sample(own[found.index(max(found))])) for own, found in zip(samples, means, strict=True)]
