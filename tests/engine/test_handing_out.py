"""Completions are handed out when their prompt has all of them, not when the batch ends."""

import pytest

from etude.engine.blocks import BlockContext
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.shared import SharedContext
from etude.engine.transformers import TransformersEngine

PROMPTS = [[5, 9, 200, 31, 7, 7], [40], [5, 9, 200, 8], [77, 3]]
OPTIONS = {"num_samples": 3, "max_new_tokens": 12, "sampling": Sampling(temperature=0.8), "seed": 2}


@pytest.mark.parametrize("engine_options", [{}, {"batch_tokens": 40}, {"batch_tokens": 1}])
@pytest.mark.parametrize("family", ["llama", "mistral-window"])
def test_every_prompt_is_handed_out_once_with_what_is_returned(model_of, tokenizer, engine_options, family):
    engine, handed = TransformersEngine(model_of(family), tokenizer, **engine_options), {}
    plain = engine.generate(PROMPTS, **OPTIONS)
    found = engine.generate(PROMPTS, **OPTIONS, on_complete=lambda place, own: handed.setdefault(place, []).append(own))
    assert handed == {place: [own] for place, own in enumerate(found)}
    assert [[own.tokens for own in row] for row in found] == [[own.tokens for own in row] for row in plain]


def test_a_prompt_that_is_done_is_handed_out_while_others_of_its_batch_are_decoded(llama, tokenizer, monkeypatch):
    free = TransformersEngine(llama, tokenizer).generate(PROMPTS, max_new_tokens=12, sampling=GREEDY)
    ends = {place: row[0].tokens for place, row in enumerate(free)}
    early = next(token for token in ends[1][:4] if all(token not in own for place, own in ends.items() if place != 1))
    llama.generation_config.eos_token_id = [early]
    events = []
    for kind in (SharedContext, BlockContext):
        original = kind.next_logits
        monkeypatch.setattr(kind, "next_logits", lambda context, tokens, real=original: events.append("step") or real(context, tokens))
    engine = TransformersEngine(llama, tokenizer)
    engine.generate(PROMPTS, max_new_tokens=12, sampling=GREEDY, on_complete=lambda place, own: events.append(place))
    assert events.index(1) < len(events) - 6 and "step" in events[events.index(1) :]
    assert sorted(event for event in events if event != "step") == [0, 1, 2, 3]


def test_a_completion_of_no_tokens_is_handed_out_too(llama, tokenizer):
    handed = []
    found = TransformersEngine(llama, tokenizer).generate(
        PROMPTS, **OPTIONS | {"max_new_tokens": 0}, on_complete=lambda *each: handed.append(each)
    )
    assert sorted(handed) == [(place, row) for place, row in enumerate(found)] and all(own.tokens == () for row in found for own in row)
