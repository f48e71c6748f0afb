"""Attempts that are revised: what stands in them, and when they are left as they are."""

import copy
from dataclasses import replace

import pytest
from small_examples import anchored, examples_of

from etude.engine.completion import Completion
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.learn.learner import Learner, OptimizerSettings
from etude.randomness import seed_for
from etude.rollouts.attempts import Attempt, Group, Source
from etude.rollouts.prompts import render_feedback, render_prompt
from etude.rollouts.refinement import CHECK, Refinement, refine
from etude.rollouts.samples import sample_groups
from etude.rollouts.steps import Steps
from etude.tasks.reward import Reward
from etude.tasks.task import Task

TASKS = [Task("ab", "x"), Task("cde", "y")]
HOW = {"max_new_tokens": 5, "sampling": Sampling(temperature=0.8), "names": (3, 1)}
TOLD = "That is not right. Correct it; give the final answer again."


@pytest.fixture(params=["plain", "chat"])
def engine(request, model_of, tokenizer, chat_tokenizer):
    return TransformersEngine(model_of("llama"), chat_tokenizer if request.param == "chat" else tokenizer)


def first_of(engine, num_samples=3, **changes):
    prompts = [render_prompt(engine.tokenizer, task) for task in TASKS]
    return sample_groups(engine, TASKS, prompts, num_samples=num_samples, **(HOW | changes))


def wrong(groups, score=0.0):
    return [[Reward(score) for _ in group.attempts] for group in groups]


def never(pairs):
    return [Reward(0.0) for _ in pairs]


def refined(engine, groups, rewards, how, judge=never, room_tokens=250, **changes):
    return refine(engine, groups, rewards, judge, how, room_tokens=room_tokens, **(HOW | changes))


def test_a_turn_is_what_the_engine_draws_behind_all_that_came_before(engine):
    groups = first_of(engine)
    assert refined(engine, groups, wrong(groups), Refinement(turns=1)) == (groups, wrong(groups)), "one turn is plain sampling"
    found, rewards = refined(engine, groups, wrong(groups), Refinement(turns=3))
    for place, (group, before) in enumerate(zip(found, groups, strict=True)):
        for number, (attempt, first) in enumerate(zip(group.attempts, before.attempts, strict=True)):
            assert attempt.tokens[: len(first.tokens)] == first.tokens and attempt.logprobs[: len(first.logprobs)] == first.logprobs
            assert attempt.turns == len(attempt.turn_spans) == 3 and attempt.key == first.key
            assert attempt.before[::2] == (first.text, engine.text_of(attempt.tokens[slice(*attempt.turn_spans[1])]))
            assert attempt.before[1::2] == (TOLD, TOLD)
            own = 0
            for turn, (start, end) in enumerate(attempt.turn_spans, 1):
                keys = [[first.key if turn == 1 else seed_for(3, 1, place, TASKS[place].key, number, "turn", turn)]]
                ((alone,),) = engine.generate([attempt.tokens[:start]], max_new_tokens=5, sampling=HOW["sampling"], keys=keys)
                assert attempt.tokens[start:end] == alone.tokens
                assert attempt.logprobs[own : own + end - start] == pytest.approx(alone.logprobs, abs=1e-5)
                own += end - start
            assert (attempt.text, attempt.finish) == (alone.text, alone.finish)
    assert {reward.turn_scores for row in rewards for reward in row} == {(0.0, 0.0, 0.0)}


def test_a_learner_that_did_not_change_finds_the_log_probs_of_all_turns(engine):
    groups = first_of(engine)
    scores = iter([1.0, 0.0] * 6)
    found, rewards = refined(engine, groups, wrong(groups), Refinement(turns=3), lambda pairs: [Reward(next(scores)) for _ in pairs])
    examples = [example for own in examples_of(found, rewards, on_examples=anchored) for example in own]
    assert len(examples) == sum(attempt.turns for group in found for attempt in group.attempts) > 12
    learner = Learner(engine._model, OptimizerSettings(), [], temperature=0.8)
    for example, logprobs in zip(examples, learner.logprobs(examples), strict=True):
        assert logprobs == pytest.approx(example.behaviour_logprobs, abs=1e-4)


def test_right_attempts_are_left_as_they_are_and_unscored_ones_are_not(engine):
    groups = first_of(engine)
    rewards = [[Reward(1.0), Reward(0.5), Reward(None)] for _ in groups]
    judged = []

    def judge(pairs):
        judged.append([task for _, task in pairs])
        return [Reward(1.0) for _ in pairs]

    found, after = refined(engine, groups, rewards, Refinement(turns=4), judge)
    assert judged == [[TASKS[0]] * 2 + [TASKS[1]] * 2]  # right then, so that nothing is left to revise
    for group, row, before in zip(found, after, groups, strict=True):
        assert group.attempts[0] is before.attempts[0] and row[0] == Reward(1.0)
        assert [reward.turn_scores for reward in row[1:]] == [(0.5, 1.0), (None, 1.0)]
        assert group.attempts[2].before[1] == "That could not be checked. Correct it; give the final answer again."


def test_fixed_words_are_told_after_every_answer(engine):
    groups = first_of(engine)
    found, rewards = refined(engine, groups, wrong(groups, 1.0), Refinement(feedback="fixed"))
    assert all(attempt.turns == 2 and attempt.before[1] == CHECK for group in found for attempt in group.attempts)
    assert {reward.turn_scores for row in rewards for reward in row} == {(1.0, 0.0)}


def test_an_attempt_without_room_is_left_as_it_is(engine):
    groups = first_of(engine)
    found, _ = refined(engine, groups, wrong(groups), Refinement())
    room = min(attempt.turn_spans[1][0] for group in found for attempt in group.attempts)
    cut, rewards = refined(engine, groups, wrong(groups), Refinement(), room_tokens=room)
    for group, whole, before, row in zip(cut, found, groups, rewards, strict=True):
        for attempt, revised, first, reward in zip(group.attempts, whole.attempts, before.attempts, row, strict=True):
            fits = revised.turn_spans[1][0] <= room
            assert attempt.tokens == (revised if fits else first).tokens
            assert len(reward.turn_scores) == (2 if fits else 0)
    assert refined(engine, groups, wrong(groups), Refinement(), room_tokens=room - 1)[0] == groups


def test_a_revision_does_not_depend_on_what_is_revised_beside_it(engine):
    groups = first_of(engine)
    found, _ = refined(engine, groups, wrong(groups), Refinement())
    rewards = wrong(groups)
    rewards[0] = [Reward(1.0), Reward(0.0), Reward(1.0)]
    alone, _ = refined(engine, groups, rewards, Refinement())
    assert alone[0].attempts[1].tokens == found[0].attempts[1].tokens


def test_equal_attempts_get_revisions_of_their_own(engine):
    groups = first_of(engine, num_samples=4, sampling=GREEDY)
    found, _ = refined(engine, groups, wrong(groups), Refinement())
    assert len({attempt.tokens[: attempt.turn_spans[1][0]] for attempt in found[0].attempts}) == 1
    assert len({attempt.tokens for attempt in found[0].attempts}) > 1


@pytest.mark.parametrize(("own", "ends"), [((70, 71), False), ((70, 1), True)])
def test_an_answer_is_told_of_behind_one_end_token(engine, own, ends):
    prompt = render_prompt(engine.tokenizer, TASKS[0])
    attempt = Attempt.of(prompt, Completion(own, (-1.0, -1.0), "", "stop" if ends else "length", 5, 0))
    ((found,),), _ = refined_attempts(engine, attempt)
    start, end = len(prompt) + 2, found.turn_spans[1][0]
    between = engine.tokenizer.decode(found.tokens[start:end])
    told = f"<user>{TOLD}<assistant>" if engine.tokenizer.chat_template else f"\n{TOLD}\n"
    assert between == ("" if ends else "<eos>") + told
    assert set(found.sources[start:end]) == {Source.FEEDBACK}


def refined_attempts(engine, attempt):
    groups, rewards = refined(engine, [Group(TASKS[0], (attempt,))], [[Reward(0.0)]], Refinement())
    return [group.attempts for group in groups], rewards


CLOSED = (
    "{% if messages[0]['role'] != 'system' %}<user>be good<eos>{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_template_that_closes_turns_and_adds_a_system_message_adds_neither_again(chat_tokenizer, llama):
    closing = copy.deepcopy(chat_tokenizer)
    closing.chat_template = CLOSED
    assert closing.decode(render_feedback(closing, "no: theanswersofar")) == "<eos>\n<user>no: theanswersofar<eos>\n<assistant>"
    engine = TransformersEngine(llama, closing)
    for own, between in (((70, 71), "<eos>\n"), ((70, 1), "\n")):
        attempt = Attempt.of((5, 6), Completion(own, (-1.0, -1.0), "", "stop", 5, 0))
        ((found,),), _ = refined_attempts(engine, attempt)
        assert found.tokens[:4] == (5, 6, *own)
        assert closing.decode(found.tokens[4 : found.turn_spans[1][0]]) == f"{between}<user>{TOLD}<eos>\n<assistant>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no more than one turn') }}", "refuses feedback on an answer: no more than one turn"),
        ("{{ messages[-1]['content'] }}", "leaves out an answer, or what is said of it"),
        ("{{ messages[1]['content'] }}", "leaves out an answer, or what is said of it"),
    ],
)
def test_a_template_that_can_not_tell_is_one_sentence(chat_tokenizer, template, message):
    broken = copy.deepcopy(chat_tokenizer)
    broken.chat_template = template
    with pytest.raises(UserError, match=message):
        render_feedback(broken, "no")


def test_without_any_end_token_the_feedback_stands_alone(tokenizer, model_of):
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    engine = TransformersEngine(model_of("llama", eos_token_id=None), endless)
    attempt = Attempt.of((5, 6), Completion((70, 71), (-1.0, -1.0), "", "length", 5, 0))
    ((found,),), _ = refined_attempts(engine, attempt)
    assert endless.decode(found.tokens[4 : found.turn_spans[1][0]]) == f"\n{TOLD}\n"


def test_the_step_that_a_verifier_values_least_is_quoted(tokenizer, llama):
    engine = TransformersEngine(llama, tokenizer)
    own = tuple(tokenizer("2+2=4\n4*3=13\n13")["input_ids"])
    attempt = Attempt.of((5, 6), Completion(own, (-1.0,) * len(own), "", "stop", 5, 0))
    reward = [[Reward(0.0, step_values=(0.5, 0.6, 0.1, 0.0), words="No.")]]
    (group,), _ = refined(engine, [Group(TASKS[0], (attempt,))], reward, Refinement(verifier_words="{words} Again:"), steps=Steps())
    assert group.attempts[0].before[1] == "No. It seems to go wrong in step 2: '4*3=13' Again:"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"turns": 0}, "refine.turns must be at least 1, got 0"),
        ({"verifier_words": "Again."}, r"refine.verifier_words 'Again.' leaves out what the verifier says: put {words} into it"),
        ({"fixed_words": " \n"}, "refine.fixed_words is empty"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(settings, message):
    with pytest.raises(UserError, match=message):
        replace(Refinement(), **settings)
