"""What is asked of a policy on a model, whoever brings it: what it really holds, of a second turn and on a hybrid too, and what it makes
of padding.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from serving import Answer


@dataclass(frozen=True)
class Turn:
    """Tokens that a batch is given at once."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    """Of these and of all before them: 0 where a row is padded."""
    positions_BT: torch.Tensor

    @staticmethod
    def of(rows: list[list[int]], before: "Turn | None" = None) -> "Turn":
        """Rows that are padded on the left."""
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        mask = mask if before is None else torch.cat([before.mask_BT, mask], 1)
        return Turn(ids, mask, (mask.cumsum(1) - 1).clamp(min=0)[:, -width:])

    def to(self, model: Any, cache: Any = None, *, is_masked: bool = True) -> Any:
        more = {} if cache is None else {"past_key_values": cache}
        more |= {"attention_mask": self.mask_BT} if is_masked else {}
        return model(input_ids=self.ids_BT, position_ids=self.positions_BT, use_cache=True, logits_to_keep=1, **more)


class Reading(Protocol):
    """Turns under a policy: bytes of the cache behind each, and logits [B, V] behind the last. Later ones have a mask if `is_masked`."""

    def __call__(
        self, model: Any, method: str, ratio: float, turns: list[Turn], *, is_masked: bool = True
    ) -> tuple[list[int], torch.Tensor]: ...


def stored(cache: Any) -> int:
    """Bytes of keys and values, of a cache of layers or, where a model has one of its own, of lists."""
    states = [getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in ("keys", "values")]
    states += [own for name in ("key_cache", "value_cache") for own in getattr(cache, name, ())]
    return sum(own.nbytes for own in states if own is not None)


class Asked:
    """A side that answers: every question by `question`, `method` and `ratio`; what it can't do by `error`, in its own words."""

    def __init__(self, read: Reading, models: dict[str, Any], tokens: list[int]) -> None:
        self._read, self._models, self._tokens = read, models, tokens
        for model in models.values():  # what any forward pass leaves is no policy's doing
            Turn.of([[0, 1]]).to(model)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """With what was left on the model's modules, or is another there, which is taken back, so that the next policy finds it as this one
        did.
        """
        before = _carried(self._models)
        try:
            found: dict[str, Any] = getattr(self, request["question"])(request["method"], request["ratio"])
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        left = set()
        for module, own in _carried(self._models).items():
            others = {name for name, value in own.items() if module in before and before[module].get(name, self) is not value}
            for name in others:
                delattr(module, name)
                if name in before[module]:
                    setattr(module, name, before[module][name])
            left |= others
        return found | {"left": sorted(left)}

    @torch.inference_mode()
    def turn(self, method: str, ratio: float) -> dict[str, Any]:
        """Bytes behind a prompt and a token of an answer, as a share of all keys and values."""
        return {"share": self._share(method, ratio, "plain", prompts=1)}

    @torch.inference_mode()
    def turns(self, method: str, ratio: float) -> dict[str, Any]:
        """The same behind a second prompt as long, and a token."""
        return {"share": self._share(method, ratio, "plain", prompts=2)}

    @torch.inference_mode()
    def hybrid(self, method: str, ratio: float) -> dict[str, Any]:
        """As `turn`, on a model with attention in some layers alone."""
        return {"share": self._share(method, ratio, "hybrid", prompts=1)}

    @torch.inference_mode()
    def padded(self, method: str, ratio: float) -> dict[str, Any]:
        """KL, in nats, of a row's next token alone and in a batch with a row that is an eighth longer, a token behind what the policy kept:
        with a mask and without one behind the prompt, whichever is nearer. And, to measure it by, of another text's next token.
        """
        long = self._tokens[: len(self._tokens) // 4]
        short, behind = self._tokens[len(long) : len(long) + len(long) * 7 // 8], self._tokens[-1:]

        def last(rows: list[list[int]], is_masked: bool) -> torch.Tensor:
            turn = Turn.of(rows)
            turns = [turn, Turn.of([behind] * len(rows), turn)]
            return self._read(self._models["plain"], method, ratio, turns, is_masked=is_masked)[1].double().log_softmax(-1)

        alone_V, other_V = last([short], True)[0], last([long], True)[0]
        distances, errors = [], []
        for is_masked in (True, False):
            try:
                distances.append(_divergence(alone_V, last([long, short], is_masked)[1]))
            except Exception as error:
                errors.append(error)
        if not distances:
            raise errors[0]
        return {"kl": min(distances), "apart": _divergence(alone_V, other_V)}

    def _share(self, method: str, ratio: float, model: str, prompts: int) -> float:
        """Behind prompts of half of the text, each with a token of an answer, of all keys and values."""
        lengths, turns = [len(self._tokens) // 2 - 1, 1] * prompts, list[Turn]()
        for place, length in enumerate(lengths):
            first = sum(lengths[:place])
            turns.append(Turn.of([self._tokens[first : first + length]], turns[-1] if turns else None))
        per_token = stored(turns[0].to(self._models[model]).past_key_values) / lengths[0]
        bytes_, _ = self._read(self._models[model], method, ratio, turns)
        return float(bytes_[-1] / (per_token * sum(lengths)))


def serving(read: Reading, models: dict[str, Any], settings: dict[str, Any]) -> Answer:
    return Asked(read, models, settings["tokens"]).answer


def _divergence(one_V: torch.Tensor, other_V: torch.Tensor) -> float:
    return float((one_V.exp() * (one_V - other_V)).sum())


def _carried(models: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    """By module what it carries, by name."""
    modules = [module for model in models.values() for module in model.modules()]
    return {module: {**module.__dict__, **module._modules} for module in modules}
