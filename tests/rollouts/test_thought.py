"""Thoughts are as long as they are to be, and answers stand behind them."""

from dataclasses import replace

import pytest

from etude.engine.completion import Completion, Stop
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.rollouts.thought import Thinking, Thought, Thoughts, _Growing, forced

HOW = Thinking(cue="So", continuation="Wait", answer_tokens=5)
PROMPTS = [tuple(range(40, 49)), (50, 51, 52), tuple(range(40, 49))]


@pytest.fixture
def engine(model_of, tokenizer):
    return TransformersEngine(model_of("qwen3"), tokenizer)


class Scripted:
    """An engine that writes what it is told, one text a call; `<` ends a text with the end token."""

    end_tokens = frozenset({1})
    positions = 1000

    def __init__(self, tokenizer, *texts: str) -> None:
        self.tokenizer, self.texts, self.asked = tokenizer, list(texts), []

    def text_of(self, tokens):
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def generate(self, prompts, *, max_new_tokens, stop_strings=(), keys, **_):
        self.asked.append((self.text_of(prompts[0]), max_new_tokens))
        text = self.texts.pop(0)
        tokens = [*self.tokenizer(text.rstrip("<"))["input_ids"], *([1] if text.endswith("<") else [])]
        found = next((text.index(each) for each in stop_strings if each in text), None)
        if found is not None:  # as the engine: the tokens that complete it are kept, the text ends before it
            tokens = self.tokenizer(text[: found + len(stop_strings[0])])["input_ids"]
        finish = "stop" if found is not None or text.endswith("<") else "length"
        tokens = tokens[:max_new_tokens]
        shown = text[:found] if found is not None else self.text_of(tokens)
        return [[Completion(tuple(tokens), (0.0,) * len(tokens), shown, finish, keys[0][0], 0)]]


def of(tokenizer, budget, *texts, how=HOW):
    engine = Scripted(tokenizer, *texts)
    (found,) = forced(engine, [tuple(tokenizer("Q")["input_ids"])], how, budget, sampling=GREEDY, keys=[3])
    return found, engine


@pytest.mark.parametrize(
    ("budget", "texts", "said", "ends_taken_back", "own_tokens", "asked"),
    [
        (14, ["one\n<", "two three", "4<"], "one\nWaittwo th\nSo4", 1, 4 + 6 + 2, [("Q", 14), ("Qone\nWait", 6)]),
        (12, ["one\nSo", "more text", "5<"], "one\nWaitmore\nSo5", 1, 4 + 4 + 2, [("Q", 12)]),  # the cue ends it as an end token does
        (4, ["one\n<", "5<"], "one\nSo5", 0, 4 + 2, [("Q", 4)]),  # it ends where its budget does
        (5, ["one<", "5<"], "one\nW\nSo5", 1, 3 + 2, [("Q", 5)]),  # no more is put in than is left
        (0, ["5<"], "So5", 0, 2, []),  # without a thought the answer comes at once
    ],
)
def test_a_thought_that_ends_too_soon_goes_on_to_its_budget(tokenizer, budget, texts, said, ends_taken_back, own_tokens, asked):
    found, engine = of(tokenizer, budget, *texts)
    assert (found.text, found.ends_taken_back, found.own_tokens) == (said, ends_taken_back, own_tokens)
    assert (found.is_cut, found.finish) == (budget == 0, "stop")
    assert engine.asked[: len(asked)] == asked and engine.asked[-1] == (f"Q{said[:-1]}", 5)


def test_thoughts_of_a_real_model_have_their_length(engine):
    until = Stop(engine.end_tokens, ("So",))
    for budget in (1, 7, 30):
        found = forced(engine, PROMPTS, HOW, budget, sampling=Sampling(), keys=[1, 2, 3])
        plain = engine.extend(engine.open(PROMPTS), budget, until=until, sampling=Sampling(), keys=[1, 2, 3])
        for answer, prefix in zip(found, plain, strict=True):
            if prefix.finish is None:  # then the thought is the beginning of the plain answer
                assert answer.text.startswith(engine.text_of(prefix.own_tokens)) and answer.is_cut and not answer.ends_taken_back
                assert budget < answer.own_tokens <= budget + HOW.answer_tokens
        again = forced(engine, PROMPTS[2:], HOW, budget, sampling=Sampling(), keys=[3])
        assert again[0] == found[2]  # whatever is thought beside it


def test_no_more_is_drawn_than_there_are_positions_beside_a_longer_thought(tokenizer):
    engine = Scripted(tokenizer, "abcd", "ef", "5")
    engine.positions = 5  # one of them for the prompt: fewer than a thought of 6 wants
    thought = _Growing(tuple(tokenizer("Q")["input_ids"]), 6)
    thought.take(engine, engine.generate([thought.tokens], max_new_tokens=4, keys=[[3]])[0][0], HOW)
    assert engine.text_of(thought.own) == "abcd" and (thought.room, thought.ends_taken_back, thought.has_ended) == (2, 0, False)


def test_a_longer_thought_beside_a_shorter_one_is_not_drawn_past_the_positions(tokenizer):
    asked = []

    class Ending(Scripted):
        """At first the longer prompt's thought ends behind 5 tokens, the shorter one's at once; then nothing ends."""

        positions = 12

        def generate(self, prompts, *, max_new_tokens, **_):
            lengths = [5 if len(prompt) == 3 else 0 for prompt in prompts] if not asked else []
            asked.append(max(map(len, prompts)) + max_new_tokens)
            drawn = [((40,) * own + (1,), "stop") for own in lengths] or [((40,) * max_new_tokens, "length") for _ in prompts]
            return [[Completion(tokens, (0.0,) * len(tokens), "", finish, 0, 0)] for tokens, finish in drawn]

    how = replace(HOW, continuation="W", cue="S", answer_tokens=1)
    found = forced(Ending(tokenizer), [(9,) * 3, (9,)], how, 8, sampling=GREEDY, keys=[1, 2])
    assert len(asked) > 2 and max(asked[:-1]) <= Ending.positions and [each.ends_taken_back for each in found] == [1, 1]


def test_a_model_that_always_ends_is_made_to_go_on(engine):
    engine.end_tokens = frozenset(range(260))
    (found,) = forced(engine, PROMPTS[:1], HOW, 11, sampling=GREEDY, keys=[0])
    assert found.own_tokens == 1 and found.ends_taken_back == 3  # 4, 5 and 2 tokens of "Wait" and its line break
    assert found.text.startswith("Wait\nWait\nW\nSo")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Thought(budget_tokens=-1), "thought.budget_tokens must be at least 0"),
        (lambda: Thoughts(budgets=[8, -8]), "thought.budgets must be at least 0"),
        (lambda: Thoughts(budgets=[8, 8]), "names a length twice"),
        (lambda: replace(HOW, continuation=""), "thought.continuation is empty"),
        (lambda: replace(HOW, cue=" "), "thought.cue is empty"),
        (lambda: replace(HOW, answer_tokens=0), "thought.answer_tokens must be at least 1"),
    ],
)
def test_wrong_settings_are_one_sentence(make, said):
    with pytest.raises(UserError, match=said):
        make()
