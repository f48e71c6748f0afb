"""Rotary position embeddings (RoPE), applied and undone by the model's own code.

The model's `apply_rotary_pos_emb` is linear in the vectors and in cosine and sine, for any pairing of channels. So it is undone by the
opposite angle, and the mean over positions of a rotated vector is the vector rotated by the means of cosine and sine.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from etude.engine.forward import rope_types
from etude.errors import UserError


@dataclass(frozen=True)
class Rotation:
    """The rotary embedding of one model."""

    embedding: Any
    """Positions → cosine and sine; None: queries and keys have no positions."""

    @staticmethod
    def of(decoder: Any) -> "Rotation":
        parts = [part for name, part in decoder.named_children() if "rotary" in name or "rope" in name]
        return Rotation(parts[0] if parts else None)

    def taken_back(self, module: Any, states_HTD: torch.Tensor, position_T: torch.Tensor) -> torch.Tensor:
        """Undo the rotation of vectors at these positions."""
        cos, sin = self._angles(module, states_HTD, position_T)
        return self._apply(module, states_HTD, cos, -sin) / self._size(cos, sin)

    def mean_turned(self, module: Any, states_HND: torch.Tensor, position_T: torch.Tensor) -> torch.Tensor:
        """Return the mean of each vector over its rotations to these positions."""
        cos, sin = self._angles(module, states_HND, position_T)
        means = [angles.mean(1, keepdim=True) for angles in (cos, sin)]
        return self._apply(module, states_HND, *means)

    def moved(self, module: Any, states_HTD: torch.Tensor, by_T: torch.Tensor) -> torch.Tensor:
        """Rotate vectors by `by_T` more positions; negative: back. Angles are in float32, so that no vector shrinks."""
        states = states_HTD.float()
        cos, sin = self._angles(module, states, by_T)
        moved: torch.Tensor = self._apply(module, states, cos, sin) / self._size(cos, sin).sqrt()
        return moved.to(states_HTD.dtype)

    def check_moves(self, module: Any, width: int) -> None:
        """Raise UserError if the model's positions are not rotations of queries and keys, or can't be changed afterwards."""
        told = f"{type(module).__name__} does not turn all of its queries by their positions alone, so these can't be counted anew"
        if not self._turns(module):
            raise UserError(f"{told}: leave rerotate out")
        try:
            self.moved(module, torch.zeros(1, 1, width), torch.zeros(1, dtype=torch.long))
        except UserError as error:
            raise UserError(f"{told}: leave rerotate out") from error

    def _angles(self, module: Any, like: torch.Tensor, position_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._turns(module):
            return like.new_ones(1, 1, 1), like.new_zeros(1, 1, 1)
        if any(kind in ("dynamic", "longrope") for kind in rope_types(module.config)):
            raise UserError("this model turns queries by how long a text is, so those to come can't be known: take another score")
        named = {"layer_type": module.config.layer_types[module.layer_idx]} if self._takes_layer_type else {}
        cos, sin = self.embedding(like, position_ids=position_T[None].to(like.device), **named)
        if cos.shape[-1] != like.shape[-1]:
            raise UserError(f"{type(module).__name__} turns a part of its queries only, which can't be taken back: take another score")
        return cos, sin

    def _turns(self, module: Any) -> bool:
        """Tell whether a layer rotates its queries, since some models skip some layers."""
        return self.embedding is not None and getattr(module, "use_rope", True)

    @cached_property
    def _takes_layer_type(self) -> bool:
        return "layer_type" in inspect.signature(self.embedding.forward).parameters

    def _size(self, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Return the squared length of a rotated unit vector; above 1 for embeddings that also scale attention (YaRN)."""
        return (cos.square() + sin.square()).mean()

    def _apply(self, module: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        apply: Callable[..., Any] | None = getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
        if self.embedding is None and apply is not None:
            raise UserError(f"where {type(module).__name__} has its angles from is unknown: take another score")
        if not self._turns(module):
            return states
        if apply is None:
            raise UserError(f"how {type(module).__name__} turns its queries is unknown: take a score that does not need them as they were")
        turned: torch.Tensor = apply(states[None], states[None], cos.to(states), sin.to(states))[0][0]
        return turned
