"""Process rewards without step labels: a language model that learns which whole answers are right gives token rewards (PRIME).

    r_t   = β (log φ(y_t | y_<t) - log ref(y_t | y_<t))       reward of a token
    loss  = BCE(sigmoid(Σ_t r_t), score)                       φ learns only from the scores of whole answers
    A_t   = Σ_(u >= t) (r_u - mean over the group's other attempts of their mean r) / m
            m: the largest |Σ_(u >= t) r_u| of the batch, at least 1, so that returns are in [-1, 1], as scores are

PRIME, arXiv 2502.01456, eq. 3 to 6: φ and ref begin as the model at the start of practice. φ is updated after it was evaluated, like the
policy, so its rewards of an attempt were not learned from it. A_t is added to the outcome's advantage, in groups with signal. The last
token has no process reward there, since the outcome belongs to it; attempts without a score get no A and do not count as others; the
division by m is the authors' `batch_norm`. Departures: their m has no minimum, so that φ's small rewards after its first update would count
as much as later ones; their baseline has the token's own reward in place of the attempt's own mean, here only the others count; they
normalize the sum of both advantages to mean 0 and deviation 1 over a batch, and drop tasks by their share of right answers. φ is a second
model with an optimizer of its own, ref a third.

Identity: with coefficient 0 there is only the outcome's advantage; the same holds for a φ that has learned nothing (r = 0).
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F

from etude.learn.example import Example, Weights
from etude.learn.learner import Learner
from etude.learn.optimizer import OptimizerSettings
from etude.learn.sequences import LIKELIHOOD, update_on_sequences
from etude.learn.step_values import in_order
from etude.rollouts.attempts import Group
from etude.tasks.reward import Reward


class ImplicitReward:
    """The second model, its optimizer and its reference."""

    def __init__(self, model: Any, beta: float, optimizer: OptimizerSettings, **options: Any) -> None:
        """Copy the model as φ and ref; `options` are those of its `Learner` (`dtype`, `batch_tokens`)."""
        self.beta = beta
        reference = copy.deepcopy(model).eval().requires_grad_(False)
        own = copy.deepcopy(model).eval()
        self.learner = Learner(own, optimizer, [LIKELIHOOD], reference=reference, **options)
        self._read: dict[Example, float] = {}
        """The reference's log-probs of the last evaluated answers."""

    def rewards(self, groups: Sequence[Group]) -> list[list[Weights]]:
        """Return r of every own token, by group and attempt."""
        answers = _answers(groups)
        own, reference = self.learner.logprobs(answers), self.learner.logprobs(answers, reference=True)
        self._read = dict(zip(answers, map(sum, reference), strict=True))
        flat = iter(zip(own, reference, strict=True))
        return [[self._rewards(*next(flat)) for _ in group.attempts] for group in groups]

    def _rewards(self, own: Sequence[float], reference: Sequence[float]) -> Weights:
        return tuple(self.beta * (one - other) for one, other in zip(own, reference, strict=True))

    def update(self, groups: Sequence[Group], rewards: Sequence[Sequence[Reward]]) -> dict[str, float]:
        """Make one update on the attempts with a score, if there are any."""
        scored = [reward.score is not None for row in rewards for reward in row]
        answers = [answer for answer, known in zip(_answers(groups), scored, strict=True) if known]
        target_S = torch.tensor([reward.score for row in rewards for reward in row if reward.score is not None], dtype=torch.float64)
        if not answers:
            return {}
        if any(answer not in self._read for answer in answers):
            self._read = dict(zip(answers, map(sum, self.learner.logprobs(answers, reference=True)), strict=True))
        reference_S = torch.tensor([self._read[answer] for answer in answers], dtype=torch.float64)

        def loss(likelihood_S: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
            value = F.binary_cross_entropy_with_logits(self.beta * (likelihood_S - reference_S), target_S)
            return value, {"loss": float(value.detach())}

        return {"loss": update_on_sequences(self.learner, answers, loss)["loss"]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the tensors of φ and its optimizer; ref is rebuilt from the model at the start of practice."""
        return {f"o.{name}": value for name, value in self.learner.state_dict().items()} | {
            f"m.{name}": value.detach() for name, value in self.learner.model.named_parameters() if value.requires_grad
        }

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the state from `state_dict`."""
        self.learner.load_state_dict({name[2:]: value for name, value in tensors.items() if name.startswith("o.")})
        with torch.no_grad():
            for name, parameter in self.learner.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"m.{name}"])


def token_returns(token_rewards: Sequence[Sequence[Weights]], rewards: Sequence[Sequence[Reward]]) -> list[list[Weights]]:
    """Return A of every own token, by group and attempt; 0 for an attempt without a score or without others."""
    rows = [
        [(*own[:-1], 0.0) if reward.score is not None else None for own, reward in zip(row, said, strict=True)]
        for row, said in zip(token_rewards, rewards, strict=True)
    ]
    most = max([1.0, *(abs(value) for row in rows for own in row if own for value in _to_come(own))])
    return [
        [_to_come(advantage) if advantage else (0.0,) * len(own) for advantage, own in zip(_centred(row, most), whole, strict=True)]
        for row, whole in zip(rows, token_rewards, strict=True)
    ]


def within_task_auc(token_rewards: Sequence[Sequence[Weights]], rewards: Sequence[Sequence[Reward]]) -> float | None:
    """Return the share of pairs of attempts at one task with different scores in which the better one has the higher Σ r (AUC within
    tasks); ties count half. None without pairs.
    """
    found = []
    for row, said in zip(token_rewards, rewards, strict=True):
        found += in_order([(sum(own), reward.score) for own, reward in zip(row, said, strict=True) if reward.score is not None])
    return fmean(found) if found else None


def _centred(row: Sequence[Weights | None], most: float) -> list[Weights | None]:
    """Return the row less the means of the others; None for attempts that cannot be compared."""
    means = [fmean(own) for own in row if own]
    if len(means) < 2:
        return [None] * len(row)
    return [own and tuple((value - (sum(means) - fmean(own)) / (len(means) - 1)) / most for value in own) for own in row]


def _to_come(own: Weights) -> Weights:
    """Return the sums from each token to the end."""
    return tuple(accumulate(reversed(own)))[::-1]


def _answers(groups: Sequence[Group]) -> list[Example]:
    return [Example(attempt.prompt, attempt.own_tokens) for group in groups for attempt in group.attempts]
