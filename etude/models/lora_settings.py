"""Settings of LoRA adapters; does not import torch, so that they are read and checked without it."""

from dataclasses import dataclass, field

from etude.errors import UserError


@dataclass(frozen=True)
class LoRA:
    """LoRA adapters on the linear layers (Hu et al. 2021, arXiv 2106.09685); the LM head and the embeddings stay frozen."""

    rank: int = 0
    """Rank of the adapters; 0 = no adapters, train all weights."""
    alpha: float | None = None
    """Numerator of the scale alpha / rank; null = twice the rank."""
    target_modules: list[str] = field(default_factory=list)
    """Names of the linear layers that get adapters, such as [q_proj, v_proj]; empty = all but the LM head."""
    dropout: float = 0.0
    """Dropout of the adapters' inputs in supervised updates (adaptation, warm start, learn.method imitation), in [0, 1); 0 = off. Policy
    gradients and preference losses use none. Depends on the seed, the update and its micro-batches, so machine.max_tokens_per_microbatch
    changes results."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"lora.rank must be 0 (all weights) or more, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout must be 0 (off) or more and below 1, got {self.dropout}")
        for name, value in {"alpha": self.alpha, "target_modules": self.target_modules or None, "dropout": self.dropout or None}.items():
            if value is not None and self.rank == 0:
                raise UserError(f"lora.{name} is {value} but lora.rank is 0, so it has no effect: set lora.rank")
