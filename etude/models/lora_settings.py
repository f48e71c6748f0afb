"""Settings of LoRA adapters; imports no torch, so that settings can be read and checked without it."""

from dataclasses import dataclass, field

from etude.errors import UserError


@dataclass(frozen=True)
class LoRA:
    """Settings of low-rank adapters on the linear layers (Hu et al. 2021, arXiv 2106.09685); the LM head and the embeddings stay frozen."""

    rank: int = 0
    """Rank of the adapters; 0 trains all weights."""
    alpha: float | None = None
    """Numerator of the scale alpha / rank; twice the rank unless given."""
    target_modules: list[str] = field(default_factory=list)
    """Names of the linear layers that get adapters, such as [q_proj, v_proj]; all but the LM head unless given."""
    dropout: float = 0.0
    """Dropout rate of the adapters' inputs in supervised updates (adaptation, warm start, learn.method imitation); 0 is off. Policy
    gradients and preference losses compare the model with itself and use no dropout. What is dropped depends on the seed, the update and
    its micro-batches: another machine.max_tokens_per_microbatch gives other numbers."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"lora.rank must be 0 (all weights) or more, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout must be 0 (off) or more and below 1, got {self.dropout}")
        for name, value in {"alpha": self.alpha, "target_modules": self.target_modules or None, "dropout": self.dropout or None}.items():
            if value is not None and self.rank == 0:
                raise UserError(f"lora.{name} is {value} but lora.rank is 0, so it has no effect: set lora.rank")
