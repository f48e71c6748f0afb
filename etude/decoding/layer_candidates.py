"""Candidates from layers: one answer for each set of layers, by contrast with it, and a rule that chooses one.

Unleash-then-Eliminate (NeurIPS 2024, by its code) generates a caption for each early layer and keeps the one from which a segmentation
model finds the region again. Here each set of neighbouring layers generates one, dynamically (`etude.decoding.layer_contrast`), and
`choose` keeps

    agreement     the most frequent answer, counted as in `majority`; the likeliest one in a tie
    likelihood    the answer with the highest mean log-prob per token under the model
    cycle         the answer from which the model recovers the question, by the mean log-prob of the question's tokens after asking which
                  question has that answer. It favours answers that repeat words of the question, so compare their lengths

Identity: k = 1, one set of every other layer, is `layer_contrast_dynamic` over these; with strength 0 all candidates are plain decoding.
"""

from etude.decoding.layer_contrast import LayerContrast
from etude.decoding.logit_lens import LayerPart
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.decoding.settings import Choose
from etude.tasks.votes import Tally, vote


def layer_candidates(pool: SamplePool, k: int, choose: Choose, strength: float, plausible: float, final_norm: bool) -> list[DecodedAnswer]:
    """Answer each question with the chosen candidate."""
    views = [LayerContrast(LayerPart(number, k), strength, plausible, final_norm) for number in range(k)]
    by_set = [pool.viewed(view) for view in views]
    candidates = [list(own) for own in zip(*by_set, strict=True)]
    if choose == "cycle":
        means = pool.recovered([[each.text for each in own] for own in candidates])
    else:
        means = pool.likelihoods([[each.tokens for each in own] for own in candidates])
    found = []
    for task, own, likely in zip(pool.tasks, candidates, means, strict=True):
        votes = [vote(each.text, task) for each in own]
        tally = Tally.of(votes)
        most = max(map(tally.share, votes)) if choose == "agreement" else 0.0
        best = max((place for place in range(k) if tally.share(votes[place]) >= most), key=likely.__getitem__)
        found.append(DecodedAnswer.of(own[best], confidence=tally.share(votes[best])))
    return found
