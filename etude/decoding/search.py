"""Answer prompts by a search without a verifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.decoding.search_settings import AnswerSearch
from etude.engine.completion import Finish
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import Sampling
from etude.rollouts.revising import revised_answers
from etude.rollouts.search.growing import Value
from etude.rollouts.search.node_values import likelihood
from etude.rollouts.search.settings import REFINE
from etude.rollouts.tree import Node, Tree
from etude.rollouts.tree_search import Items, grown
from etude.tasks.answers import comparable_answer
from etude.tasks.votes import majority


@dataclass(frozen=True)
class SearchAnswer:
    """The answer that a search found to a task."""

    text: str
    finish: Finish
    sampled_tokens: int
    """Tokens of the whole search."""
    found: dict[str, Any]
    """The number of `answers` to choose from, or the texts of all `turns`."""
    tree: Tree | None = None


def search_answers(
    engine: PrefixEngine,
    items: Items,
    how: AnswerSearch,
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    room_tokens: int,
    by_step_model: Value | None = None,
) -> list[SearchAnswer]:
    """Search an answer to each task; random numbers are keyed by `names`, `room_tokens` is the longest text that is continued."""
    assert by_step_model or not how.needs_step_model
    if how.method == REFINE:
        sizes: dict[str, Any] = {"max_new_tokens": max_new_tokens, "room_tokens": room_tokens, "sampling": sampling}
        attempts = revised_answers(engine, items, how.refinement, **sizes, names=names)
        return [SearchAnswer(each.text, each.finish, each.num_own_tokens, {"turns": [*each.before[::2], each.text]}) for each in attempts]
    ends = by_step_model if by_step_model and how.value == "step_model" else likelihood
    trees = grown(engine, items, how, num_samples, max_new_tokens, sampling, names, ends, by_step_model)
    return [_answer(tree, how, by_step_model) for tree in trees]


def _answer(tree: Tree, how: AnswerSearch, by_step_model: Value | None) -> SearchAnswer:
    weights: dict[Node, float] = {}
    if by_step_model and how.choose in ("step_model", "weighted"):
        worth = by_step_model([(tree, node) for node in tree.ends()])
        weights = {node: value or 0.0 for node, value in zip(tree.ends(), worth, strict=True)}
    match how.choose:
        case "value":
            node = tree.best()
        case "majority":
            node = _most_agree(tree)
        case "weighted":
            node = _most_agree(tree, weights)
        case "step_model":
            node = max(weights, key=weights.__getitem__)
    assert node and node.finish  # a search has at least one answer
    answers = sum(len(end.keys) for end in tree.ends())
    return SearchAnswer(tree.text_of(node), node.finish, tree.sampled_tokens, {"answers": answers}, tree)


def _most_agree(tree: Tree, weights: Mapping[Node, float] | None = None) -> Node:
    """Return the node of the majority answer; votes are weighted by each answer's share of the policy's answers, times its weight."""
    shares = tree.shares()
    votes = [share if weights is None else float(share) * weights[node] for node, share in shares.items()]
    return list(shares)[majority([comparable_answer(tree.text_of(node)) for node in shares], votes)]
