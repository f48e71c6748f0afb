"""What is asked of a policy on a model, whoever brings it: what it really holds, of a second turn and of a padded batch too."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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

    def to(self, model: Any, cache: Any = None) -> Any:
        more = {} if cache is None else {"past_key_values": cache}
        return model(
            input_ids=self.ids_BT, attention_mask=self.mask_BT, position_ids=self.positions_BT, use_cache=True, logits_to_keep=1, **more
        )


Reading = Callable[[Any, str, float, list[Turn]], tuple[list[int], torch.Tensor]]
"""`read(model, method, ratio, turns)`: under a policy; bytes of the cache behind each turn, and the logits [B, V] behind the last."""


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
        """With what was left on the model's modules, which is taken away again, so that the next policy finds it as this one did."""
        before = _carried(self._models)
        try:
            found: dict[str, Any] = getattr(self, request["question"])(request["method"], request["ratio"])
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        left = {module: names - before[module] for module, names in _carried(self._models).items() if module in before}
        for module, names in left.items():
            for name in names:
                delattr(module, name)
        return found | {"left": sorted(set().union(*left.values()))}

    @torch.inference_mode()
    def held(self, method: str, ratio: float) -> dict[str, Any]:
        """Bytes behind a turn and behind a second one as long, each with a token of an answer, as shares of all keys and values."""
        model, half = self._models["plain"], len(self._tokens) // 2
        parts = [self._tokens[: half - 1], self._tokens[half - 1 : half], self._tokens[half:-1], self._tokens[-1:]]
        turns = [Turn.of([parts[0]])]
        for part in parts[1:]:
            turns.append(Turn.of([part], turns[-1]))
        per_token = stored(turns[0].to(model).past_key_values) / (half - 1)
        bytes_, _ = self._read(model, method, ratio, turns)
        return {"shares": [own / (per_token * half * turn) for turn, own in ((1, bytes_[1]), (2, bytes_[3]))]}

    @torch.inference_mode()
    def padded(self, method: str, ratio: float) -> dict[str, Any]:
        """KL, in nats, of a row's next token alone and in a batch with a longer row, a token behind what the policy kept."""
        model, quarter = self._models["plain"], len(self._tokens) // 4
        long, short, behind = self._tokens[:quarter], self._tokens[quarter : quarter + quarter * 3 // 4], self._tokens[-1:]
        logits = []
        for rows in ([short], [long, short]):
            turn = Turn.of(rows)
            _, own_BV = self._read(model, method, ratio, [turn, Turn.of([behind] * len(rows), turn)])
            logits.append(own_BV[-1].double().log_softmax(-1))
        return {"kl": float((logits[0].exp() * (logits[0] - logits[1])).sum())}

    @torch.inference_mode()
    def hybrid(self, method: str, ratio: float) -> dict[str, Any]:
        """Bytes behind a turn on a model with attention in some layers alone, as a share of all its keys and values."""
        model = self._models["hybrid"]
        tokens = self._tokens[: len(self._tokens) // 2]
        turn = Turn.of([tokens[:-1]])
        full = stored(turn.to(model).past_key_values) / (len(tokens) - 1) * len(tokens)
        bytes_, _ = self._read(model, method, ratio, [turn, Turn.of([tokens[-1:]], turn)])
        return {"shares": [bytes_[1] / full]}


def serving(read: Reading, models: dict[str, Any], settings: dict[str, Any]) -> Answer:
    return Asked(read, models, settings["tokens"]).answer


def _carried(models: dict[str, Any]) -> dict[Any, set[str]]:
    """By module the names of what it carries, hooks among them."""
    modules = [module for model in models.values() for module in model.modules()]
    return {
        module: {*module.__dict__, *module._modules, *map(str, (*module._forward_hooks, *module._forward_pre_hooks))} for module in modules
    }
