"""Integrative decoding: every token is drawn from what k inputs together find likely, each of which shows the model one of its own samples.

    r_1 .. r_k ~ p(. | x)
    q_j = [x ; r_j ; an instruction to answer again ; x]                                         (`etude.decoding.inputs`)
    y_t = argmax_v sum_j log p(v | q_j, y_<t)                  (Cheng et al. 2025, ICLR, arXiv 2410.01556, by their code)

With `stop_agreed`, ours, samples are drawn two at first, then twice as many, up to k; a question whose samples all give the same answer
(`etude.tasks.votes`) is answered by the first of them, and neither more samples nor inputs are made for it.

Identity: inputs that are all the same are one (`etude.engine.joint`); `etude.decoding.controls` has what its gain is to be told from.
"""

from etude.decoding.inputs import Layout, inputs_of, joined
from etude.decoding.pool import Decoded, Pool
from etude.decoding.settings import AGAIN
from etude.engine.joint import mean, product
from etude.engine.protocols import Join
from etude.tasks.votes import vote


def integrative(pool: Pool, k: int, again: str = AGAIN, layout: Layout = "turns", stop_agreed: bool = False) -> list[Decoded]:
    """The joint argmax of summed log-probs."""
    return _unless_agreed(pool, k, again, layout, stop_agreed, product)


def integrative_mean_prob(pool: Pool, k: int, again: str = AGAIN, layout: Layout = "turns", stop_agreed: bool = False) -> list[Decoded]:
    """As `integrative`, with the mean of probabilities instead of log-probs."""
    return _unless_agreed(pool, k, again, layout, stop_agreed, mean)


def _unless_agreed(pool: Pool, k: int, again: str, layout: Layout, stop_agreed: bool, join: Join) -> list[Decoded]:
    """A joint answer to each question, or with `stop_agreed` what its first samples agree on."""
    settled = _agreed(pool, k) if stop_agreed else {}
    left = [place for place in range(len(pool.tasks)) if place not in settled]
    samples = dict(zip(left, pool.samples(k, left), strict=True))
    inputs = inputs_of(pool, [samples.get(place, []) for place in range(len(pool.tasks))], again, layout)
    return [settled.get(place, answer) for place, answer in enumerate(joined(pool, inputs, join, k))]


def _agreed(pool: Pool, k: int) -> dict[int, Decoded]:
    """The questions, by their places, whose first samples all give the same answer, of which there are two at least."""
    settled: dict[int, Decoded] = {}
    left, number = list(range(len(pool.tasks))), 2
    while left and number <= k:
        for place, samples in zip(list(left), pool.samples(number, left), strict=True):
            answers = [pool.sample(sample) for sample in samples]
            votes = {vote(answer.text, pool.tasks[place]) for answer in answers}
            if len(votes) == 1 and None not in votes:
                settled[place] = Decoded.of(answers[0], notes=(f"its first {number} samples agree",))
                left.remove(place)
        number = min(2 * number, k) if number < k else k + 1
    return settled
