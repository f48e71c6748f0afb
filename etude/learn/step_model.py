"""The step model: predicts the reward of an answer from its prefix, learned from the results of other answers.

    V(prefix) = sigmoid(head(h))      h: the input of the backbone's LM head at the prefix's last token, standardised
    loss         = - mean of t · log V + (1 - t) · log(1 - V)
                   t: the share of right answers among those that continued from there (soft), or whether one was right (hard)

after Math-Shepherd (arXiv 2312.08935, sec. 3: soft and hard estimation, binary cross-entropy at the ends of steps). There it is a separate
model, trained once on continuations sampled for it. Here it learns beside the policy from practice's own samples, its targets are scores in
[0, 1], and the root of an answer is a prefix too. Every answer has the same weight, and within it every prefix, so that long answers do not
outweigh short ones. A step's answers are learned from in `epochs` passes, together with those of the `replay_steps` previous steps, each
step with the same weight: one step has too few answers to tell good from bad. With 0 only the step's own answers are used.

backbone policy   the current policy's states, without gradient: only the head is trained, on the states that it is used with next, so
                  it learns after the policy; one pass over a step's answers, with shared prefixes computed once, and earlier steps with
                  the states of their time
         own      a copy of the model at the start of practice, or another one with the same tokenizer, trained as a whole: a second model
                  and optimizer in memory

The last layer of the head begins at 0, so that every V is 1/2: differences of values are 0 until it has learned.

As an advantage, V(s) - V(before s) is as wrong as V is. An untrained V gives all of it to the last step, which can ruin a policy before V
has learned. So V is trusted as far as it has ordered attempts at one task that it had not learned from (`trust`): with c = 2 auc - 1, a
prefix is worth c · V + (1 - c) · its Monte-Carlo value. Identity: with c = 0 only that, with c = 1 only V.

Shapes: K prefixes, E hidden size.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from etude.errors import UserError
from etude.learn.batches import MicroBatch, can_share_prefixes, pack
from etude.learn.example import Example
from etude.learn.logprobs import hidden_states
from etude.learn.moments import load_moments, moments_of
from etude.learn.step_model_settings import StepModelSettings
from etude.models.adapters import has_adapters
from etude.randomness import seed_for

_MOST_GRADIENT_NORM = 1.0
_FADING = 0.9
"""Decay per step of the weight of a pair in `trust`."""


@dataclass(frozen=True)
class Prefixes:
    """Positions in an answer to value."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    """Own tokens, after the prompt."""
    ends: tuple[int, ...]
    """Number of these tokens in each prefix."""


@dataclass(frozen=True)
class StepTarget:
    """Targets for the prefixes of an answer."""

    prefixes: Prefixes
    targets: tuple[float, ...]
    """In [0, 1], one per prefix."""


class _Reading(NamedTuple):
    """Hidden states of prefixes with their targets."""

    states_KE: torch.Tensor
    targets_K: torch.Tensor
    weights_K: torch.Tensor
    """Weights in the mean; those of a step sum to 1."""


class StepModel:
    """A head on hidden states, with its optimizer."""

    def __init__(
        self,
        model: Any,
        settings: StepModelSettings,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        batch_tokens: int = 2048,
    ) -> None:
        """Create the head and its optimizer. `model` is the policy, or the model that an own backbone copies. `dtype` and `batch_tokens`
        are those of updates.
        """
        self.settings, self.dtype, self.batch_tokens = settings, dtype, batch_tokens
        self.owns_backbone = settings.backbone == "own"
        self.backbone = _plain_copy(model) if self.owns_backbone else model
        self.device = next(model.parameters()).device
        self.head = new_head(model, settings.hidden, seed).to(self.device)
        self.scores, self.ordered = (0.0, 0.0), (0.0, 0.0)
        """Sum and number of the scores seen so far, and of the pairs in order, with older ones decayed."""
        self.earlier: list[_Reading] = []
        """Readings to learn from again, the oldest step first."""
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters()), "lr": settings.learning_rate}]
        if self.owns_backbone:
            groups.append({"params": list(self.backbone.parameters()), "lr": settings.backbone_learning_rate or 1e-5})
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self._adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=self.device.type in ("cpu", "cuda"))

    @property
    def mean_score(self) -> float:
        """Mean score of the answers so far: the prediction of a model that knows nothing."""
        return self.scores[0] / self.scores[1] if self.scores[1] else 0.5

    @property
    def trust(self) -> float:
        """How far its values are trusted, in [0, 1]."""
        if self.settings.trust is not None:
            return self.settings.trust
        return max(0.0, 2 * self.ordered[0] / self.ordered[1] - 1) if self.ordered[1] else 0.0

    def observe(self, scores: Sequence[float], ordered: Sequence[float]) -> None:
        """Record scores of attempts that it has not learned from, and whether it had ordered pairs of attempts at a task."""
        self.scores = self.scores[0] + sum(scores), self.scores[1] + len(scores)
        self.ordered = _FADING * self.ordered[0] + sum(ordered), _FADING * self.ordered[1] + len(ordered)

    @torch.no_grad()
    def values(self, answers: Sequence[Prefixes]) -> list[tuple[float, ...]]:
        """Return V of every prefix, in [0, 1]."""
        found: list[tuple[float, ...]] = [()] * len(answers)
        for states_KE, members in self._states(answers):
            values = iter(self.head(states_KE).sigmoid().tolist())
            for member in members:
                found[member] = tuple(next(values) for _ in answers[member].ends)
        return found

    def update(self, step_targets: Sequence[StepTarget]) -> dict[str, float]:
        """Make `epochs` updates on these answers and those of earlier steps; the loss is that before the last. Without answers nothing
        changes.
        """
        if not step_targets:
            return {}
        kept = None if self.owns_backbone else self._with_earlier(step_targets)
        loss = 0.0
        for _ in range(self.settings.epochs):
            loss = 0.0
            for reading in kept or self._readings(step_targets):
                part = self._loss(reading)
                part.backward()
                loss += float(part.detach())
            self._step()
        return {"loss": loss}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the trained weights and optimizer state, without the policy."""
        seen = {"seen": torch.tensor([*self.scores, *self.ordered], dtype=torch.float64)}
        weights = {f"weight.{name}": value.detach() for name, value in self._weights().items()}
        earlier = {
            f"earlier.{place}.{name}": value for place, reading in enumerate(self.earlier) for name, value in reading._asdict().items()
        }
        return seen | earlier | weights | {f"moment.{name}": value for name, value in moments_of(self._adam, self.parameters).items()}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the state with that of `state_dict`."""
        seen = tensors["seen"].tolist()
        self.scores, self.ordered = (seen[0], seen[1]), (seen[2], seen[3])
        names = _Reading._fields
        number = sum(name.startswith("earlier.") for name in tensors) // len(names)
        kept = ([tensors[f"earlier.{place}.{name}"].to(self.device, copy=True) for name in names] for place in range(number))
        self.earlier = [_Reading(*own) for own in kept]
        for name, value in self._weights().items():
            value.copy_(tensors[f"weight.{name}"])
        own = {name.removeprefix("moment."): value for name, value in tensors.items() if name.startswith("moment.")}
        load_moments(self._adam, self.parameters, own)

    def _weights(self) -> dict[str, torch.Tensor]:
        own = self.backbone.named_parameters(prefix="backbone") if self.owns_backbone else ()
        return dict([*self.head.named_parameters(prefix="head"), *own])

    def _states(self, answers: Sequence[Prefixes]) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Yield hidden states [K, E] of the prefixes of some answers at a time, and the indices of these answers, in order."""
        self.backbone.eval()
        examples = [Example(answer.prompt, (*answer.tokens, 0)) for answer in answers]  # an extra token, so that the last one predicts too
        for batch in pack(examples, batch_tokens=self.batch_tokens, shares_prefixes=can_share_prefixes(self.backbone.config)):
            batch = batch.to(self.device)
            positions_K, members = _positions(batch, answers)
            yield hidden_states(self.backbone, batch, positions_K, self.dtype), members

    def _readings(self, step_targets: Sequence[StepTarget]) -> Iterator[_Reading]:
        """Yield readings of some answers at a time: each answer has the same weight in the mean, and within it every prefix."""
        for states_KE, members in self._states([step_target.prefixes for step_target in step_targets]):
            own = [step_targets[member] for member in members]
            targets = [target for step_target in own for target in step_target.targets]
            weights = [1 / (len(step_targets) * len(step_target.targets)) for step_target in own for _ in step_target.targets]
            yield _Reading(states_KE, torch.tensor(targets).to(states_KE), torch.tensor(weights).to(states_KE))

    @torch.no_grad()
    def _with_earlier(self, step_targets: Sequence[StepTarget]) -> list[_Reading]:
        """Add the policy's states of this step after those of earlier ones, with equal weights of steps; keep the last `replay_steps`."""
        steps = [*self.earlier, _joined(list(self._readings(step_targets)))]
        self.earlier = steps[-self.settings.replay_steps :] if self.settings.replay_steps else []
        together = _joined(steps)
        return [together._replace(weights_K=together.weights_K / len(steps))]

    def _loss(self, reading: _Reading) -> torch.Tensor:
        """Return the reading's part in the mean loss."""
        logits_K = self.head(reading.states_KE)
        return F.binary_cross_entropy_with_logits(logits_K, reading.targets_K, weight=reading.weights_K, reduction="sum")

    def _step(self) -> None:
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, _MOST_GRADIENT_NORM))
        if not math.isfinite(norm):
            raise UserError("the step model's gradient is not finite: start a run with a lower step_model.learning_rate")
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)


class Head(nn.Module):
    """Hidden states [K, E] → logits [K]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width, elementwise_affine=False))
        if hidden:
            self.layers.extend([nn.Linear(width, hidden), nn.SiLU()])
        self.layers.append(nn.Linear(hidden or width, 1))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, states_KE: torch.Tensor) -> torch.Tensor:
        return self.layers(states_KE)[:, 0]


def new_head(model: Any, hidden: int, seed: int) -> Head:
    """Return an untrained head for a model's hidden states."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "step model") % 2**63)
        return Head(model.get_output_embeddings().weight.shape[1], hidden)


def _joined(readings: Sequence[_Reading]) -> _Reading:
    return _Reading(*(torch.cat(parts) for parts in zip(*readings, strict=True)))


def _plain_copy(model: Any) -> Any:
    """Return a copy without adapters, with every weight trainable."""
    copied = copy.deepcopy(model)
    return (copied.merge_and_unload() if has_adapters(model) else copied).requires_grad_(True)


def _positions(batch: MicroBatch, answers: Sequence[Prefixes]) -> tuple[torch.Tensor, list[int]]:
    """Return flat positions [K] of the prefixes' last tokens, and the indices of their answers in order."""
    first: dict[int, int] = {}
    for place, member in enumerate(batch.example_N.tolist()):
        first.setdefault(member, place)
    chosen = [start + end for member, start in first.items() for end in answers[member].ends]
    return batch.sources_M[batch.triple_N[chosen]], list(first)
