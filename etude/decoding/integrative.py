"""Integrative decoding: samples every token from the joint prediction of k inputs, each with one of the model's own samples.

    r_1 .. r_k ~ p(. | x)
    q_j = [x ; r_j ; an instruction to answer again ; x]                                         (`etude.decoding.joint_inputs`)
    y_t = argmax_v sum_j log p(v | q_j, y_<t)                  (Cheng et al. 2025, ICLR, arXiv 2410.01556, by their code)

`stop_agreed` is etude's addition: it takes two samples first, then doubles their number up to k. A question whose samples all give the same
answer (`etude.tasks.votes`) gets the first of them, without further samples or inputs.

Identity: equal inputs are the same as one (`etude.engine.joint`). `etude.decoding.controls` has its controls.
"""

from etude.decoding.joint_inputs import Layout, build_inputs, decode_jointly
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.decoding.settings import AGAIN
from etude.engine.joint import mean, product
from etude.engine.protocols import Join
from etude.tasks.votes import vote


def integrative(pool: SamplePool, k: int, again: str = AGAIN, layout: Layout = "turns", stop_agreed: bool = False) -> list[DecodedAnswer]:
    """Decode the joint argmax of summed log-probs."""
    return _unless_agreed(pool, k, again, layout, stop_agreed, product)


def integrative_mean_prob(
    pool: SamplePool, k: int, again: str = AGAIN, layout: Layout = "turns", stop_agreed: bool = False
) -> list[DecodedAnswer]:
    """Decode like `integrative`, with the mean of probabilities instead of log-probs."""
    return _unless_agreed(pool, k, again, layout, stop_agreed, mean)


def _unless_agreed(pool: SamplePool, k: int, again: str, layout: Layout, stop_agreed: bool, join: Join) -> list[DecodedAnswer]:
    """Answer each question jointly, or with `stop_agreed` by the answer that its first samples agree on."""
    settled = _agreed(pool, k) if stop_agreed else {}
    left = [place for place in range(len(pool.tasks)) if place not in settled]
    samples = dict(zip(left, pool.samples(k, left), strict=True))
    inputs = build_inputs(pool, [samples.get(place, []) for place in range(len(pool.tasks))], again, layout)
    return [settled.get(place, answer) for place, answer in enumerate(decode_jointly(pool, inputs, join, k))]


def _agreed(pool: SamplePool, k: int) -> dict[int, DecodedAnswer]:
    """Return the answers of questions, by index, whose first samples (at least two) all agree."""
    settled: dict[int, DecodedAnswer] = {}
    left, number = list(range(len(pool.tasks))), 2
    while left and number <= k:
        for place, samples in zip(list(left), pool.samples(number, left), strict=True):
            answers = [pool.sample(sample) for sample in samples]
            votes = {vote(answer.text, pool.tasks[place]) for answer in answers}
            if len(votes) == 1 and None not in votes:
                settled[place] = DecodedAnswer.of(answers[0], notes=(f"its first {number} samples agree",))
                left.remove(place)
        number = min(2 * number, k) if number < k else k + 1
    return settled
