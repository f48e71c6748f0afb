"""Process rewards that nobody labels: a language model that learns which whole answers are right says so token by token (PRIME).

    r_t   = β (log φ(y_t | y_<t) - log ref(y_t | y_<t))       what a token is worth
    loss  = BCE(sigmoid(Σ_t r_t), score)                       φ learns from the scores of whole answers alone
    A_t   = Σ_(u >= t) (r_u - mean over the group's other attempts of their mean r) / m
            m: the largest |Σ_(u >= t) r_u| of the batch, at least 1, so that what is to come is in [-1, 1], as scores are

PRIME, arXiv 2502.01456, eq. 3 to 6: φ and ref begin as the model that practice began with, φ is updated after it was asked, as the policy
is, so what it says of an attempt was not learned from it. A_t is added to the outcome's advantage, in groups with signal. The last token
has no process reward there, since the outcome is its own; attempts without a score get no A and are nobody's others; the division by m is
the authors' `batch_norm`. Departures: their m has no least value, so that what φ says after its first update, which is hardly anything,
would count as much as what it says later; their baseline has the token's own reward in place of the attempt's own mean, here the others'
alone count; they bring the sum of both advantages to mean 0 and deviation 1 over a batch, and leave out tasks by their share of right
answers. φ is a second model with an optimizer of its own, ref a third.

Identity: coefficient 0 is the outcome's advantage alone; so is a φ that has learned nothing (r = 0).
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
    """The second model, its optimizer and the one that it is compared with."""

    def __init__(self, model: Any, beta: float, optimizer: OptimizerSettings, **options: Any) -> None:
        """`options` are those of its `Learner` (`dtype`, `batch_tokens`)."""
        self.beta = beta
        reference = copy.deepcopy(model).eval().requires_grad_(False)
        own = copy.deepcopy(model).eval()
        self.learner = Learner(own, optimizer, [LIKELIHOOD], reference=reference, **options)
        self._read: dict[Example, float] = {}
        """What the reference said of the answers that were asked about last."""

    def rewards(self, groups: Sequence[Group]) -> list[list[Weights]]:
        """r of every own token, by group and attempt."""
        answers = _answers(groups)
        own, reference = self.learner.logprobs(answers), self.learner.logprobs(answers, reference=True)
        self._read = dict(zip(answers, map(sum, reference), strict=True))
        flat = iter(zip(own, reference, strict=True))
        return [[self._rewards(*next(flat)) for _ in group.attempts] for group in groups]

    def _rewards(self, own: Sequence[float], reference: Sequence[float]) -> Weights:
        return tuple(self.beta * (one - other) for one, other in zip(own, reference, strict=True))

    def update(self, groups: Sequence[Group], rewards: Sequence[Sequence[Reward]]) -> dict[str, float]:
        """Make one update on the attempts that have a score, if any has."""
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
        """Return the model's and its optimizer's tensors; the one that it is compared with is made anew from where practice began."""
        return {f"o.{name}": value for name, value in self.learner.state_dict().items()} | {
            f"m.{name}": value.detach() for name, value in self.learner.model.named_parameters() if value.requires_grad
        }

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave."""
        self.learner.load_state_dict({name[2:]: value for name, value in tensors.items() if name.startswith("o.")})
        with torch.no_grad():
            for name, parameter in self.learner.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"m.{name}"])


def token_returns(token_rewards: Sequence[Sequence[Weights]], rewards: Sequence[Sequence[Reward]]) -> list[list[Weights]]:
    """Return A of every own token, by group and attempt; 0 for an attempt without a score, and for a lone one."""
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
    """Of the pairs of attempts at a task that differ in score, the share whose better one has the higher Σ r (AUC within tasks); ties half.
    None: no pair.
    """
    found = []
    for row, said in zip(token_rewards, rewards, strict=True):
        found += in_order([(sum(own), reward.score) for own, reward in zip(row, said, strict=True) if reward.score is not None])
    return fmean(found) if found else None


def _centred(row: Sequence[Weights | None], most: float) -> list[Weights | None]:
    """None for what can't be compared."""
    means = [fmean(own) for own in row if own]
    if len(means) < 2:
        return [None] * len(row)
    return [own and tuple((value - (sum(means) - fmean(own)) / (len(means) - 1)) / most for value in own) for own in row]


def _to_come(own: Weights) -> Weights:
    """Return the sums from each token on."""
    return tuple(accumulate(reversed(own)))[::-1]


def _answers(groups: Sequence[Group]) -> list[Example]:
    return [Example(attempt.prompt, attempt.own_tokens) for group in groups for attempt in group.attempts]
