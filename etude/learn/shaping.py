"""Shape the rewards from which advantages are computed: right attempts that are unlike the rest of the group count more.

    R_i - weight · o_i · (R_i - R_min)      o_i in [0, 1]: how ordinary attempt i is among its group of G; R_min: the group's lowest score

For scores of 0 and 1 this is R_i (1 - weight · o_i), as in the source; a constant shift of other scores leaves advantages unchanged.

unlikeliness       o_i = rank_i / G, rank 0 for the attempt of the lowest mean log-prob: unlikely right answers earn more
                   (He et al., arXiv 2506.02355, as in their code, weight 0.25 with two epochs of updates). Departure: attempts of equal
                   likelihood share the mean of their ranks, so that they earn the same
novelty            o_i = mean over the others of the share of its pairs of neighbouring tokens and theirs that both have
                   (Jaccard; ours: 1 - o_i is the mean n-gram distance to the group)
novelty_embedding  o_i = mean over the others of max(0, cos(e_i, e_j)), e the mean input embedding of the own tokens less that of the whole
                   vocabulary (ours: no forward pass)

Measured and stored rewards do not change; only advantages see the shaped ones. No score is raised: ordinary attempts are lowered, and the
worst attempt gains nothing by being odd. A group whose scores are all equal stays unchanged and has no signal, as in the source, so that
attempts which are all right or all wrong are not compared by form only. Any rule of `etude.learn.advantages` applies to a group with
signal, also `pass_at_k`: a set of attempts scores as its best shaped one.

Identity: weight 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

from etude.learn.advantages import has_signal
from etude.rollouts.attempts import Attempt, Group
from etude.tasks.reward import Reward

Shaping = Callable[[Group, "torch.Tensor"], list[float]]
"""(group, the model's input embeddings [V, E]) → how ordinary each attempt is."""


def shaped(
    groups: Sequence[Group], rewards: Sequence[Sequence[Reward]], name: str, weight: float, embeddings_VE: "torch.Tensor"
) -> list[list[Reward]]:
    """Return the rewards for advantages."""
    return [_shaped(group, row, SHAPING[name], weight, embeddings_VE) for group, row in zip(groups, rewards, strict=True)]


def unlikeliness(group: Group, embeddings_VE: "torch.Tensor") -> list[float]:
    """Return rank / G by mean log-prob, the least likely first."""
    means = [fmean(attempt.logprobs) for attempt in group.attempts]
    return [(sum(other < mean for other in means) + (means.count(mean) - 1) / 2) / len(means) for mean in means]


def novelty(group: Group, embeddings_VE: "torch.Tensor") -> list[float]:
    """Return the mean share of token pairs in common with each other attempt."""
    pairs = [_pairs(attempt) for attempt in group.attempts]
    return _mean_of_others([[len(one & other) / len(one | other) for other in pairs] for one in pairs])


def novelty_embedding(group: Group, embeddings_VE: "torch.Tensor") -> list[float]:
    """Return the mean cosine with each other attempt, 0 where it is negative."""
    import torch

    centre_E = embeddings_VE.detach().float().mean(0)
    means_GE = torch.stack([embeddings_VE.detach()[list(attempt.own_tokens)].float().mean(0) - centre_E for attempt in group.attempts])
    unit_GE = torch.nn.functional.normalize(means_GE, dim=1)
    return _mean_of_others((unit_GE @ unit_GE.T).clamp(0, 1).tolist())


SHAPING: dict[str, Shaping] = {"unlikeliness": unlikeliness, "novelty": novelty, "novelty_embedding": novelty_embedding}


def _shaped(group: Group, row: Sequence[Reward], rule: Shaping, weight: float, embeddings_VE: "torch.Tensor") -> list[Reward]:
    if not has_signal([reward.score for reward in row]):
        return list(row)
    ordinary = rule(group, embeddings_VE)
    lowest = min(reward.score for reward in row if reward.score is not None)
    return [
        reward if reward.score is None else replace(reward, score=reward.score - weight * own * (reward.score - lowest))
        for reward, own in zip(row, ordinary, strict=True)
    ]


def _pairs(attempt: Attempt) -> set[tuple[int, ...]]:
    """Return the distinct pairs of neighbouring own tokens; a single token for an attempt of length 1."""
    own = attempt.own_tokens
    return set(pairwise(own)) or {own}


def _mean_of_others(likeness: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean likeness of each attempt to the others; 0 for a single attempt."""
    others = [[value for place, value in enumerate(row) if place != own] for own, row in enumerate(likeness)]
    return [fmean(row) if row else 0.0 for row in others]
