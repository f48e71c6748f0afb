"""Drafts: what a completion may begin with, drawn again in one pass instead of token by token.

A token is decided by its logits and by a random number that is keyed by (attempt, place). A draft is a guess at what those decide: one pass
over it gives the logits at all of its places, the attempt's own numbers draw a token from each, and up to the first that differs from the
draft (that one included) they are what decoding would have drawn. So a draft decides how fast a completion comes, never which: without any
it is the same up to rounding, by which in bfloat16 a token can be another one, as it can in another batch; its distribution is the same.
Identity: the draft that this model draws with these numbers is taken whole, up to that.

Drafts of a prompt are read as a tree, in which what several begin with stands once and a token sees its ancestors alone.

Shapes: as in `etude.engine.attention`; M places that predict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from etude.engine.context import Forward
from etude.engine.sampling import Sampling, sample
from etude.engine.shared import SharedContext, _Layers
from etude.randomness import uniforms

_PASS_TOKENS = 768
"""Places that are read together, unless one tree has more; bounds what their logits take."""


@dataclass
class Tree:
    """A prompt and its drafts in preorder. The last token of a draft predicts nothing that is drawn, so it has no place."""

    prompt: Sequence[int]
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Where the places that see a token end: it is seen from itself up to there."""
    paths: list[list[int]] = field(default_factory=list)
    """Of each draft, the places of prompt and draft."""

    @staticmethod
    def of(prompt: Sequence[int], drafts: Sequence[Sequence[int]]) -> "Tree":
        tree = Tree(prompt, paths=[[] for _ in drafts])
        inputs = [[*prompt, *draft[:-1]] for draft in drafts]
        last: list[int] = []
        for number in sorted(range(len(drafts)), key=inputs.__getitem__):
            own = inputs[number]
            before = [tree.tokens[place] for place in last]
            shared = next((i for i, pair in enumerate(zip(before, own, strict=False)) if pair[0] != pair[1]), min(len(before), len(own)))
            places = range(len(tree.tokens), len(tree.tokens) + len(own) - shared)
            tree.tokens += own[shared:]
            tree.positions += range(shared, len(own))
            tree.ends += [0] * len(places)
            last = [*last[:shared], *places]
            for place in last:
                tree.ends[place] = len(tree.tokens)
            tree.paths[number] = last
        return tree

    def bias_11TT(self, dtype: torch.dtype) -> torch.Tensor:
        """-inf where a token is no ancestor."""
        place_T = torch.arange(len(self.tokens))
        is_seen_TT = (place_T <= place_T[:, None]) & (place_T[:, None] < torch.tensor(self.ends))
        return torch.zeros(is_seen_TT.shape, dtype=dtype).masked_fill(~is_seen_TT, -torch.inf)[None, None]


class Reading:
    """One pass over some trees: what their drafts' numbers draw, and keys and values from which to go on."""

    def __init__(self, forward: Forward, trees: Sequence[Tree]) -> None:
        self.forward, self.trees = forward, trees
        self.starts = np.cumsum([0, *(len(tree.tokens) for tree in trees)]).tolist()
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Keys and values [N, K, D] at all places of all trees."""
        self._dtype = next(forward.model.parameters()).dtype

    def draw(
        self, drafts: Sequence[Sequence[Sequence[int]]], keys: Sequence[Sequence[int]], sampling: Sampling
    ) -> Iterator[list[tuple[list[int], list[float]]]]:
        """For each tree, of each draft the tokens that decoding would draw up to where they leave it, with their log-probs.

        Of an empty draft the first token is drawn all the same.
        """
        for first, end in self._parts():
            logits_MV, row_of = self._read(first, end)
            for number in range(first, end):
                yield _drawn(logits_MV, row_of[number - first], self.trees[number], drafts[number], keys[number], sampling)

    def context(self, paths: Sequence[tuple[int, Sequence[int]]], room_tokens: int, rows: int) -> SharedContext:
        """Rows that have seen these places, (tree, places), with room for so many more tokens, and for `rows` of them after forks."""
        lengths = [len(path) for _, path in paths]
        longest = max(lengths)
        place_BT = torch.zeros(len(paths), longest, dtype=torch.long)
        for row, (tree, path) in enumerate(paths):
            place_BT[row, longest - len(path) :] = torch.tensor(path) + self.starts[tree]
        own = _Layers(rows, longest + room_tokens)
        for states in self.layers:
            stores = [each.new_zeros(rows, each.shape[1], longest + room_tokens, each.shape[2]) for each in states]
            for store, each in zip(stores, states, strict=True):
                store[: len(paths), :, :longest] = each[place_BT].transpose(1, 2)
            own.stores.append((stores[0], stores[1]))
        return SharedContext(self.forward, None, torch.arange(len(paths)), torch.tensor(lengths), own, longest)

    def _parts(self) -> Iterator[tuple[int, int]]:
        first = 0
        while first < len(self.trees):
            end = first + 1
            while end < len(self.trees) and self.starts[end + 1] - self.starts[first] <= _PASS_TOKENS:
                end += 1
            yield first, end
            first = end

    def _read(self, first: int, end: int) -> tuple[torch.Tensor, list[dict[int, int]]]:
        """Logits [M, V] at the predicting places of these trees, and for each tree the row of a place."""
        trees = self.trees[first:end]
        lengths = [len(tree.tokens) for tree in trees]
        biases = [tree.bias_11TT(self._dtype) for tree in trees]

        def attend(layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
            self._keep(layer, first, end, keys, values)
            parts = zip(*(states.split(lengths) for states in (queries, keys, values)), biases, strict=True)
            return torch.cat([_over_tree(own[0], own[1], own[2], own[3], scale) for own in parts]).contiguous()

        chosen: list[int] = []
        row_of: list[dict[int, int]] = []
        for tree, start in zip(trees, np.cumsum([0, *lengths]).tolist(), strict=False):
            row_of.append({place: len(chosen) + row for row, place in enumerate(range(len(tree.prompt) - 1, len(tree.tokens)))})
            chosen += [start + place for place in row_of[-1]]
        tokens_N = torch.tensor([token for tree in trees for token in tree.tokens])
        positions_N = torch.tensor([position for tree in trees for position in tree.positions])
        return self.forward.logits(tokens_N, positions_N, attend, torch.tensor(chosen)), row_of

    def _keep(self, layer: int, first: int, end: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if layer == len(self.layers):
            self.layers.append((keys.new_empty(self.starts[-1], *keys.shape[1:]), values.new_empty(self.starts[-1], *values.shape[1:])))
        for store, states in zip(self.layers[layer], (keys, values), strict=True):
            store[self.starts[first] : self.starts[end]] = states


def _over_tree(
    queries_THD: torch.Tensor, keys_TKD: torch.Tensor, values_TKD: torch.Tensor, bias_11TT: torch.Tensor, scale: float
) -> torch.Tensor:
    queries, keys, values = (states.transpose(0, 1)[None] for states in (queries_THD, keys_TKD, values_TKD))
    return scaled_dot_product_attention(queries, keys, values, attn_mask=bias_11TT, scale=scale, enable_gqa=True)[0].transpose(0, 1)


def _drawn(
    logits_MV: torch.Tensor,
    row_of: dict[int, int],
    tree: Tree,
    drafts: Sequence[Sequence[int]],
    keys: Sequence[int],
    sampling: Sampling,
) -> list[tuple[list[int], list[float]]]:
    rows = [[row_of[place] for place in path[len(tree.prompt) - 1 :]] for path in tree.paths]
    key_N = np.array([key for key, own in zip(keys, rows, strict=True) for _ in own], dtype=np.uint64)
    uniform_N = torch.from_numpy(uniforms(key_N, np.array([place for own in rows for place in range(len(own))])))
    tokens_N, logprobs_N = sample(logits_MV, sampling, uniform_N, torch.tensor([row for own in rows for row in own]))
    tokens, logprobs, found = tokens_N.tolist(), logprobs_N.tolist(), []
    start = 0
    for draft, own in zip(drafts, rows, strict=True):
        drawn = tokens[start : start + len(own)]
        pairs = enumerate(zip(drawn, draft, strict=False))
        count = next((place + 1 for place, (mine, its) in pairs if mine != its), len(own))
        found.append((drawn[:count], logprobs[start : start + count]))
        start += len(own)
    return found
