"""An update on preference pairs: their completions, the reference's log-probs, and the loss."""

from collections.abc import Sequence

import torch

from etude.learn.example import Example
from etude.learn.learner import Learner
from etude.learn.losses.preference import Likelihoods, PreferenceLoss, preference_loss
from etude.learn.pairs import Pair
from etude.learn.sequences import likelihoods, update_on_sequences


class Preferring:
    """The pairs of a step, for one or more updates; the reference reads each completion once."""

    def __init__(self, learner: Learner, pairs: Sequence[Pair], loss: PreferenceLoss) -> None:
        self.learner, self.loss = learner, loss
        self._reference: dict[Example, float] = {}
        if loss.needs_reference:
            self._read(_completions(pairs))

    def update(self, pairs: Sequence[Pair]) -> dict[str, float]:
        """Make one optimizer step on some of the pairs.

        Metrics: `preference_loss`; `preference_accuracy`, the share of pairs whose preferred completion is ahead; `preference_ahead`, its
        mean lead in nats (beyond the reference if there is one); `chosen_ahead`, that of the preferred completions only.
        """
        if not pairs:
            return {}
        completions, learner = _completions(pairs), self.learner
        place = {completion: number for number, completion in enumerate(completions)}
        chosen_P, rejected_P = (torch.tensor([place[each] for each in side]) for side in zip(*map(_sides, pairs), strict=True))
        reference_S = torch.tensor([self._reference.get(each, 0.0) for each in completions], dtype=torch.float64)
        tokens_S = torch.tensor([len(each.completion) for each in completions])
        middle = self._mean_of_mismatched(pairs)

        def loss(likelihood_S: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
            seen = Likelihoods(
                likelihood_S[chosen_P],
                likelihood_S[rejected_P],
                reference_S[chosen_P],
                reference_S[rejected_P],
                tokens_S[chosen_P],
                tokens_S[rejected_P],
                middle,
            )
            value = preference_loss(seen, self.loss).mean()
            margin_P = (seen.ahead_chosen_P - seen.ahead_rejected_P).detach()
            return value, {
                "preference_loss": float(value.detach()),
                "preference_accuracy": float((margin_P > 0).double().mean()),
                "preference_ahead": float(margin_P.mean()),
                "chosen_ahead": float(seen.ahead_chosen_P.detach().mean()),
            }

        return update_on_sequences(learner, completions, loss)

    def _mean_of_mismatched(self, pairs: Sequence[Pair]) -> float:
        others = _mismatched(pairs) if self.loss.needs_mismatched else []
        if not others:
            return 0.0
        self._read(others)
        reference_S = torch.tensor([self._reference[each] for each in others], dtype=torch.float64)
        return float((likelihoods(self.learner.logprobs(others)) - reference_S).mean())

    def _read(self, completions: Sequence[Example]) -> None:
        """Compute the reference's likelihoods of those completions that have none yet."""
        new = [each for each in dict.fromkeys(completions) if each not in self._reference]
        found = likelihoods(self.learner.logprobs(new, reference=True)).tolist() if new else []
        self._reference |= dict(zip(new, found, strict=True))


def _sides(pair: Pair) -> tuple[Example, Example]:
    return Example(pair.prompt, pair.chosen), Example(pair.prompt, pair.rejected)


def _completions(pairs: Sequence[Pair]) -> list[Example]:
    """Return each completion once, even if it is in several pairs."""
    return list(dict.fromkeys(each for pair in pairs for each in _sides(pair)))


def _mismatched(pairs: Sequence[Pair]) -> list[Example]:
    """Return each pair's prompt with both completions of the nearest pair before it (cyclically) with another prompt."""
    found = []
    for place, pair in enumerate(pairs):
        before = (pairs[place - distance] for distance in range(1, len(pairs)))
        other = next((each for each in before if each.prompt != pair.prompt), None)
        if other:
            found += [Example(pair.prompt, other.chosen), Example(pair.prompt, other.rejected)]
    return found
