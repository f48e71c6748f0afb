import pytest

from etude.engine.sampling import Sampling
from etude.engine.streaming import TextStreamer
from etude.engine.transformers import TransformersEngine


def test_only_whole_characters_are_written_and_no_beginning_of_a_stop_string(llama, tokenizer):
    engine, pieces = TransformersEngine(llama, tokenizer), []
    streamed = TextStreamer(engine.text_of, pieces.append, ["END"])
    for token in tokenizer("aé本E N END b", add_special_tokens=False)["input_ids"]:
        streamed.put(token)
    assert pieces == ["a", "é", "本", "E ", "N", " "]
    streamed.end("aé本E N ")
    assert "".join(pieces) == streamed.written == "aé本E N "


def test_an_answer_that_was_chosen_is_written_whole_and_another_one_on_a_line_of_its_own():
    pieces = []
    TextStreamer(str, pieces.append).end("four")
    assert pieces == ["four"]
    streamed = TextStreamer(lambda tokens: "five"[: len(tokens)], pieces.append)
    streamed.put(0)
    streamed.end("four")
    assert pieces == ["four", "f", "our"]
    changed = TextStreamer(lambda tokens: "x", pieces.append)
    changed.put(0)
    changed.end("four")
    assert pieces[3:] == ["x", "\n", "four"]


@pytest.mark.parametrize("family", ["llama", "qwen3", "mamba"])
def test_every_token_is_heard_with_its_prompt_and_sample(model_of, tokenizer, family):
    engine, heard = TransformersEngine(model_of(family), tokenizer), {}
    prompts = [[9, 10, 11], [20, 21], [30]]
    how = {"num_samples": 2, "max_new_tokens": 7, "sampling": Sampling()}
    found = engine.generate(prompts, **how, on_token=lambda i, sample, token: heard.setdefault((i, sample), []).append(token))
    assert heard == {(i, sample): list(each.tokens) for i, own in enumerate(found) for sample, each in enumerate(own)}
    first, second = engine.open(prompts[:2])
    told: list[tuple[int, int]] = []
    joint = engine.extend_joint([[first, second], [second]], 6, sampling=Sampling(), keys=[1, 2], on_token=lambda *each: told.append(each))
    assert [[token for place, token in told if place == group] for group in range(2)] == [list(each.completion.tokens) for each in joint]
