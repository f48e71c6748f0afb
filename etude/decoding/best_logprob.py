"""The sample of k that the model finds likeliest: by the mean log-prob of its tokens, under the distribution that drew them.

The mean, since a sum prefers short answers. At a temperature other than 1 the log-probs are those at that temperature. It is the control
that tells choosing among samples from joining them. Identity: k = 1 is one sample.
"""

from etude.decoding.pool import Decoded, Pool


def best_logprob(pool: Pool, k: int) -> list[Decoded]:
    found = []
    for samples in pool.samples(k):
        means = [sum(sample.own_logprobs) / len(sample.own_logprobs) for sample in samples]
        found.append(Decoded.of(pool.sample(samples[means.index(max(means))])))
    return found
