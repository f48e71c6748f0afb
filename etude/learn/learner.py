"""The training loop: examples in five streams → an updated model.

The learner knows no algorithm by name. A stream is a loss function, the weights it reads from an example, a coefficient and a way to
average. Warm start uses only the imitate stream, practice the policy stream; retention adds anchor and replay, preference the likelihood
stream.

The gradient of a batch does not depend on its cut into micro-batches: every token's share in the mean is fixed beforehand. All streams
divide by the whole batch's count, so a stream with a quarter of a batch's examples weighs a quarter; replay is added to the batch and is
not counted in it.

The model stays in evaluation mode: the denominator of a ratio is the behaviour policy, which sampled without dropout. With dropout in the
numerator an unchanged model would not have ratio 1. Adapters may have dropout of their own, for streams that imitate.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from etude.errors import UserError
from etude.learn.batches import MicroBatch, can_share_prefixes, pack
from etude.learn.example import Example, Weights
from etude.learn.logprobs import Outputs, completion_logprobs, token_logprobs
from etude.learn.losses.tokens import LossAggMode, Tokens, shares
from etude.learn.moments import load_moments, moments_of
from etude.learn.optimizer import OptimizerSettings
from etude.models.adapters import adapter_dropout, disable_adapters, has_adapters
from etude.randomness import seed_for

Loss = Callable[[Outputs, Tokens], tuple[torch.Tensor, dict[str, torch.Tensor]]]
Mark = Callable[[Sequence[Example], Sequence[Weights], int], Sequence[Example]]
"""(whole batch, its completions' current log-probs, number of updates so far) → the batch with marks."""


@dataclass(frozen=True)
class Stream:
    """One term of the loss."""

    name: str
    """`policy`, `imitate`, `anchor`, `likelihood` or `replay`: the field of an example with the weights."""
    loss: Loss
    coefficient: float = 1.0
    loss_agg_mode: LossAggMode = "token-mean"
    constant_tokens: int = 1
    """Divisor of `seq-mean-token-sum-norm`."""
    mark: Mark | None = None
    """Marks tokens of the whole batch before it is cut; costs a forward pass."""


@dataclass(frozen=True)
class BatchSize:
    """Size of the batch as sampled, before groups without signal were dropped."""

    sequences: int
    tokens: int

    @staticmethod
    def of(examples: Sequence[Example]) -> "BatchSize":
        return BatchSize(len(examples), sum(len(example.completion) for example in examples))


@dataclass
class Learner:
    """A trainable model with its optimizer."""

    model: Any
    optimizer: OptimizerSettings
    streams: list[Stream]
    dtype: torch.dtype = torch.float32
    """Precision of the matrix products; weights and optimizer are float32."""
    batch_tokens: int = 2048
    """Positions in a micro-batch; limits memory."""
    shares_prefixes: bool | None = None
    """Whether shared prefixes of examples are computed once; None decides by the architecture."""
    temperature: float = 1.0
    """Sampling temperature of own tokens, used by the policy and anchor streams. The others use 1."""
    reference: Any = None
    """A frozen reference model; None: with adapters, the model with its adapters off."""
    entropy_bonus: float = 0.0
    """Coefficient of the entropy of the policy stream's tokens, averaged as their loss, subtracted from the loss; 0 is off and costs
    nothing.
    """
    restarts: bool = False
    """Whether `restart` must be able to restore the current model."""
    dropout_seed: int | None = None
    """Seed, with the number of updates so far, of the adapters' dropout; None: no dropout."""
    rate_factor: float = 1.0
    """Factor on the learning rate; whoever changes it must save it in checkpoints."""
    updates: int = field(default=0, init=False)
    _is_refreshed: bool = field(default=False, init=False)
    """Whether the reference was refreshed, so that checkpoints hold it."""

    def __post_init__(self) -> None:
        self.optimizer.check("optimizer")
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.shares_prefixes is None:
            self.shares_prefixes = can_share_prefixes(self.model.config)
        self.device = self.parameters[0].device
        self._start = [parameter.detach().clone() for parameter in self.parameters] if self.restarts else None
        self._adam = torch.optim.AdamW(
            self.parameters,
            lr=self.optimizer.learning_rate,
            betas=self.optimizer.betas,
            weight_decay=self.optimizer.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    @torch.no_grad()
    def restart(self) -> None:
        """Restore the model from when this learner was created, and reset the optimizer; needs `restarts`."""
        if self._start is None:
            raise ValueError("a learner that restarts is made with restarts=True")
        for parameter, start in zip(self.parameters, self._start, strict=True):
            parameter.copy_(start)
        self._adam.state.clear()
        self.updates = 0

    def update(self, examples: Sequence[Example], size: BatchSize | None = None, *, rate_share: float = 1.0) -> dict[str, float]:
        """Make one optimizer step on a batch, at this share of the rate, and return metrics (token means). An empty batch changes
        nothing.
        """
        if not examples:
            return {}
        size = size or BatchSize.of(examples)
        self.model.eval()
        for stream in self.streams:
            if stream.mark:
                examples = stream.mark(examples, self.logprobs(examples), self.updates)
        examples, metrics = [part for example in examples for part in example.apart()], _Means()
        how: dict[str, Any] = {"batch_tokens": self.batch_tokens, "shares_prefixes": bool(self.shares_prefixes)}
        for number, batch in enumerate(pack(examples, **how, temperatures=self._temperatures(examples))):
            batch = batch.to(self.device)
            with self._dropping_out(number):
                outputs = token_logprobs(self.model, batch, self.dtype, entropy_slopes=self.entropy_bonus > 0)
            metrics.add({"entropy": outputs.entropy_N.detach().mean()}, len(batch.example_N))
            self._backward(outputs, batch, examples, size, metrics)
        return metrics.result() | self._step(rate_share)

    def _dropping_out(self, batch: int) -> AbstractContextManager[None]:
        """Return a context with dropout for the forward pass of a micro-batch of this update."""
        if self.dropout_seed is None:
            return nullcontext()
        return adapter_dropout(self.model, seed_for(self.dropout_seed, self.updates, batch))

    def logprobs(self, examples: Sequence[Example], *, reference: bool = False) -> list[tuple[float, ...]]:
        """Return log-probs of the examples' completion tokens under the model or the reference: at the sampling temperature for examples in
        the policy or the anchor stream, at 1 for others.
        """
        if reference and self.reference is None and not has_adapters(self.model):
            raise ValueError("a model without adapters needs a reference to be compared with")
        model = self.reference if reference and self.reference is not None else self.model
        options: dict[str, Any] = {"batch_tokens": self.batch_tokens, "temperature": self._temperatures(examples)}
        with disable_adapters(model) if reference and self.reference is None else nullcontext():
            return completion_logprobs(model, examples, self.dtype, shares_prefixes=self.shares_prefixes, **options)

    def with_reference(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples with the reference's log-probs, for the anchor stream."""
        found = self.logprobs(examples, reference=True)
        return [replace(example, reference_logprobs=values) for example, values in zip(examples, found, strict=True)]

    def with_old_logprobs(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples with this model's log-probs as those of the behaviour policy, so that ratios to it are 1 until an update."""
        found = self.logprobs(examples)
        return [replace(example, behaviour_logprobs=values) for example, values in zip(examples, found, strict=True)]

    @torch.no_grad()
    def refresh_reference(self) -> None:
        """Copy the current model into the reference, which must be a model of its own."""
        for own, now in zip(self.reference.parameters(), self.model.parameters(), strict=True):
            own.copy_(now)
        self._is_refreshed = True

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the optimizer's tensors, the number of updates and a refreshed reference."""
        tensors = {"updates": torch.tensor(self.updates), **moments_of(self._adam, self.parameters)}
        if self._is_refreshed:
            trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
            tensors |= {f"reference.{name}": value.detach() for name, value in self.reference.named_parameters() if name in trained}
        return tensors

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the state with that of `state_dict`."""
        self.updates = int(tensors["updates"])
        kept = {name.removeprefix("reference."): value for name, value in tensors.items() if name.startswith("reference.")}
        self._is_refreshed = bool(kept)
        with torch.no_grad():
            own = dict(self.reference.named_parameters()) if kept else {}
            for name, value in kept.items():
                own[name].copy_(value)
        others = {name: value for name, value in tensors.items() if name != "updates" and not name.startswith("reference.")}
        load_moments(self._adam, self.parameters, others)

    def _temperatures(self, examples: Sequence[Example]) -> list[float]:
        return [self.temperature if example.is_sampled else 1.0 for example in examples]

    def _backward(self, outputs: Outputs, batch: MicroBatch, examples: Sequence[Example], size: BatchSize, metrics: "_Means") -> None:
        losses = []
        for stream in self.streams:
            tokens, chosen = _stream_tokens(stream, batch, examples, size)
            if len(chosen) == 0:
                continue
            part = Outputs(outputs.logprobs_N[chosen], outputs.entropy_N[chosen])
            loss, extra = stream.loss(part, tokens)
            losses.append(stream.coefficient * loss)
            metrics.add(extra, len(chosen))
            metrics.sum(f"{stream.name}_loss", loss)
            if stream.name == "policy":
                if self.entropy_bonus:
                    losses.append(-self.entropy_bonus * (part.entropy_N * tokens.shares_N).sum())
                metrics.add({"kl_behaviour": (tokens.behaviour_N - part.logprobs_N.detach()).mean()}, len(chosen))
        if losses:
            total = torch.stack(losses).sum()
            total.backward()

    def _step(self, rate_share: float) -> dict[str, float]:
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.optimizer.max_grad_norm))
        rate = self.optimizer.rate(self.updates) * self.rate_factor * rate_share
        if not math.isfinite(norm):
            self._adam.zero_grad(set_to_none=True)
            raise UserError(
                f"the gradient is not finite at update {self.updates + 1} (learning rate {rate:g}): start a run with a lower one"
            )
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self.updates += 1
        return {"gradient_norm": norm, "learning_rate": rate}


def _stream_tokens(stream: Stream, batch: MicroBatch, examples: Sequence[Example], size: BatchSize) -> tuple[Tokens, torch.Tensor]:
    """Return the stream's data for a micro-batch, and which of its N tokens it covers."""
    present = list(dict.fromkeys(batch.example_N.tolist()))
    members = [i for i in present if getattr(examples[i], stream.name) is not None]
    if stream.name == "anchor" and any(examples[i].reference_logprobs is None for i in members):
        raise ValueError("an example of the anchor stream needs reference_logprobs: see Learner.with_reference")
    lengths = [len(examples[i].completion) for i in members]
    per_sequence = shares(
        lengths, stream.loss_agg_mode, constant_tokens=stream.constant_tokens, sequences=size.sequences, tokens=size.tokens
    )
    device = batch.example_N.device
    chosen = torch.isin(batch.example_N, torch.tensor(members, device=device, dtype=torch.long)).nonzero().flatten()

    def flat(name: str) -> torch.Tensor:
        values = [getattr(examples[i], name) or (0.0,) * len(examples[i].completion) for i in members]
        return torch.tensor([value for row in values for value in row], device=device)

    tokens = Tokens(
        weights_N=flat(stream.name),
        shares_N=torch.tensor([share for share, n in zip(per_sequence, lengths, strict=True) for _ in range(n)], device=device),
        sequence_N=torch.tensor([k for k, n in enumerate(lengths) for _ in range(n)], device=device),
        behaviour_N=flat("behaviour_logprobs"),
        reference_N=flat("reference_logprobs"),
        marks_N=flat("marks"),
    )
    return tokens, chosen


class _Means:
    """Metrics of a batch, accumulated over micro-batches: token means and plain sums."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = defaultdict(float)
        self.weights: dict[str, int] = defaultdict(int)

    def add(self, values: Mapping[str, torch.Tensor], weight: int) -> None:
        for name, value in values.items():
            self.totals[name] += float(value) * weight
            self.weights[name] += weight

    def sum(self, name: str, value: torch.Tensor) -> None:
        self.totals[name] += float(value.detach())
        self.weights[name] = 1

    def result(self) -> dict[str, float]:
        return {name: total / self.weights[name] for name, total in self.totals.items()}
