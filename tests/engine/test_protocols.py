"""Anything that offers an engine's methods is one: rollouts need no class of etude's."""

from dataclasses import dataclass
from typing import Any

from etude.engine.completion import Completion
from etude.engine.protocols import Engine, PrefixEngine
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.rollouts.samples import sample_groups
from etude.tasks.task import Task


@dataclass
class RemoteEngine:
    """An engine without a model here: a server would be asked for what `generate` makes up."""

    tokenizer: Any
    end_tokens: frozenset[int] = frozenset({0})
    positions: int = 1 << 20
    batch_tokens: int = 1 << 15
    policy_version: int = 0

    def generate(
        self, prompts, *, num_samples=1, max_new_tokens, sampling, seed=0, keys=None, stop_strings=(), on_complete=None, on_token=None
    ):
        keys = keys or [range(num_samples)] * len(prompts)
        rows = []
        for number, (prompt, own) in enumerate(zip(prompts, keys, strict=True)):
            said = tuple(prompt[:max_new_tokens])
            rows.append([Completion(said, (-1.0,) * len(said), self.text_of(said), "length", key, self.policy_version) for key in own])
            if on_complete:
                on_complete(number, rows[-1])
        return rows

    def text_of(self, tokens):
        return self.tokenizer.decode(list(tokens))

    def offload_weights(self):
        pass

    def sync_weights(self, policy_version):
        self.policy_version = policy_version


def test_a_rollout_needs_nothing_but_an_engine(tokenizer):
    engine: Engine = RemoteEngine(tokenizer)
    assert isinstance(engine, Engine) and not isinstance(engine, PrefixEngine)
    engine.sync_weights(3)
    done = []
    tasks, prompts = [Task("a"), Task("b")], [(5, 6, 7), (8, 9)]
    how = {"num_samples": 2, "max_new_tokens": 2, "sampling": Sampling(), "names": (0, 1)}
    groups = sample_groups(engine, tasks, prompts, **how, done=lambda place, group: done.append((place, group)))
    assert [[attempt.own_tokens for attempt in group.attempts] for group in groups] == [[(5, 6)] * 2, [(8, 9)] * 2]
    assert {attempt.policy_version for group in groups for attempt in group.attempts} == {3}
    assert len({attempt.key for group in groups for attempt in group.attempts}) == 4 and done == list(enumerate(groups))


def test_the_default_engine_keeps_prefixes(llama, tokenizer):
    engine: PrefixEngine = TransformersEngine(llama, tokenizer)
    assert isinstance(engine, PrefixEngine)
