"""Preference losses over the log-likelihoods of pairs of completions, of which one is preferred to the other.

With d = log pi(y) - log ref(y) of a whole completion y, d+ of the preferred (chosen) and d- of the other (rejected), |y| in tokens:

dpo    -log sigmoid(β (d+ - d-))                                        DPO, arXiv 2305.18290 eq. 7
       -(1 - ε) log sigmoid(β (d+ - d-)) - ε log sigmoid(-β (d+ - d-))  with label smoothing ε: cDPO (Mitchell 2023)
ipo    (d+ / |y+| - d- / |y-| - 1 / (2 β))²                             IPO, arXiv 2310.12036 eq. 17, by a token's mean as its authors do
kto    1 - ½ sigmoid(β (d+ - z)) - ½ sigmoid(β (z - d-))                KTO, arXiv 2402.01306 eq. 7-8, both weights 1
       z = max(0, mean over the batch of d of a prompt with another prompt's completion)
simpo  -log sigmoid(β (log pi(y+) / |y+| - log pi(y-) / |y-|) - simpo_gamma) SimPO, arXiv 2405.14734 eq. 6: no reference

Each takes `Likelihoods` and returns P losses; their mean is minimized. `nll` adds the preferred completion's mean negative log-likelihood
(RPO; IRPO, arXiv 2404.19733 eq. 2), which keeps it likely; the difference would let both fall.
Identity: if pi is the reference, dpo's gradient is -β/2 (grad log pi(y+) - grad log pi(y-)), whatever the completions' likelihoods.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from etude.learn.loss_settings import PreferenceLoss


@dataclass
class Likelihoods:
    """Log-likelihoods of P pairs of whole completions, under the policy and the reference."""

    chosen_P: torch.Tensor
    rejected_P: torch.Tensor
    reference_chosen_P: torch.Tensor
    reference_rejected_P: torch.Tensor
    chosen_tokens_P: torch.Tensor
    rejected_tokens_P: torch.Tensor
    mismatched: float = 0.0
    """Mean of log pi - log ref over completions after other prompts (`kto`)."""

    @property
    def ahead_chosen_P(self) -> torch.Tensor:
        """log pi - log ref of the preferred completion."""
        return self.chosen_P - self.reference_chosen_P

    @property
    def ahead_rejected_P(self) -> torch.Tensor:
        return self.rejected_P - self.reference_rejected_P


def dpo(pairs: Likelihoods, how: PreferenceLoss) -> torch.Tensor:
    """Return -log sigmoid(β (d+ - d-)), smoothed."""
    margin_P = how.beta * (pairs.ahead_chosen_P - pairs.ahead_rejected_P)
    return -(1 - how.label_smoothing) * F.logsigmoid(margin_P) - how.label_smoothing * F.logsigmoid(-margin_P)


def ipo(pairs: Likelihoods, how: PreferenceLoss) -> torch.Tensor:
    """Return (d+ / |y+| - d- / |y-| - 1 / (2 β))²."""
    margin_P = pairs.ahead_chosen_P / pairs.chosen_tokens_P - pairs.ahead_rejected_P / pairs.rejected_tokens_P
    return (margin_P - 1 / (2 * how.beta)) ** 2


def kto(pairs: Likelihoods, how: PreferenceLoss) -> torch.Tensor:
    """Return the loss of each completion against the mean of mismatched ones."""
    middle = max(0.0, pairs.mismatched)
    chosen_P = 1 - torch.sigmoid(how.beta * (pairs.ahead_chosen_P - middle))
    rejected_P = 1 - torch.sigmoid(how.beta * (middle - pairs.ahead_rejected_P))
    return (chosen_P + rejected_P) / 2


def simpo(pairs: Likelihoods, how: PreferenceLoss) -> torch.Tensor:
    """Return -log sigmoid(β (log pi(y+) / |y+| - log pi(y-) / |y-|) - simpo_gamma)."""
    margin_P = pairs.chosen_P / pairs.chosen_tokens_P - pairs.rejected_P / pairs.rejected_tokens_P
    return -F.logsigmoid(how.beta * margin_P - how.simpo_gamma)


PREFERENCE_LOSSES: dict[str, Callable[[Likelihoods, PreferenceLoss], torch.Tensor]] = {"dpo": dpo, "ipo": ipo, "kto": kto, "simpo": simpo}


def preference_loss(pairs: Likelihoods, how: PreferenceLoss) -> torch.Tensor:
    """Return the loss of each of P pairs."""
    loss_P = PREFERENCE_LOSSES[how.loss](pairs, how)
    return loss_P - how.rpo_alpha * pairs.chosen_P / pairs.chosen_tokens_P if how.rpo_alpha else loss_P
