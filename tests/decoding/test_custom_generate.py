"""A method within transformers' own generate."""

import pytest
import torch

from etude.decoding.custom_generate import reliable
from etude.decoding.decode import decode
from etude.decoding.methods import METHODS
from etude.decoding.settings import ReliableDecoding
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.rollouts.prompts import render_prompt
from etude.tasks.task import Task

QUESTIONS = ["2 + 2?", "Who wrote Emma?", "Where?"]


@pytest.fixture
def model(model_of):
    return model_of("qwen3", max_position_embeddings=1024, num_hidden_layers=5)


def inputs_of(tokenizer):
    tokenizer.padding_side = "left"
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return tokenizer.apply_chat_template(chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True)


def texts_of(tokenizer, inputs, found):
    return [tokenizer.decode(row[inputs["input_ids"].shape[1] :], skip_special_tokens=True) for row in found]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("abstain", "context_contrast")])
def test_generate_gives_the_answers_of_the_method(model, chat_tokenizer, method):
    inputs = inputs_of(chat_tokenizer)
    found = model.generate(**inputs, max_new_tokens=8, do_sample=False, custom_generate=reliable(method, chat_tokenizer, QUESTIONS, k=2))
    assert torch.equal(found[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    engine, tasks = TransformersEngine(model, chat_tokenizer), [Task(question) for question in QUESTIONS]
    items = [(task, render_prompt(chat_tokenizer, task)) for task in tasks]
    asking = {"max_new_tokens": 8, "room_tokens": 900, "names": (0, "generate"), "sampling": GREEDY}

    @torch.no_grad()
    def logprobs(pairs):
        rows = [(model(torch.tensor([[*prompt, *own]])).logits[0].log_softmax(-1), len(prompt), own) for prompt, own in pairs]
        return [tuple(float(row[start - 1 + place, token]) for place, token in enumerate(own)) for row, start, own in rows]

    expected = decode(engine, items, ReliableDecoding(method, k=2), **asking, logprobs=logprobs)
    assert texts_of(chat_tokenizer, inputs, found) == [each.answer.text for each in expected]


def test_questions_are_read_from_prompts_that_ask_one_question(model, chat_tokenizer):
    inputs, asked = inputs_of(chat_tokenizer), {"max_new_tokens": 8, "do_sample": False}
    told = model.generate(**inputs, **asked, custom_generate=reliable("integrative", chat_tokenizer, QUESTIONS, k=2))
    assert torch.equal(model.generate(**inputs, **asked, custom_generate=reliable("integrative", chat_tokenizer, k=2)), told)
    talk = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3?"}]
    longer = torch.tensor([render_prompt(chat_tokenizer, Task(tuple(talk)))])
    with pytest.raises(UserError, match="prompt 1 is not one question in the model's chat template: give what is asked"):
        model.generate(longer, **asked, custom_generate=reliable("majority", chat_tokenizer, k=2))


def test_one_wording_is_what_generate_itself_gives(model, chat_tokenizer):
    inputs = inputs_of(chat_tokenizer)
    plain = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    own = reliable("integrative_original", chat_tokenizer, [[{"role": "user", "content": question}] for question in QUESTIONS], k=1)
    assert torch.equal(model.generate(**inputs, max_new_tokens=8, do_sample=False, custom_generate=own), plain)


def test_a_prompt_without_padding_is_taken_whole(model, chat_tokenizer):
    ids = torch.tensor([render_prompt(chat_tokenizer, Task(QUESTIONS[1]))])
    own = reliable("integrative_original", chat_tokenizer, QUESTIONS[1:2], k=1)
    for mask in ({}, {"attention_mask": torch.ones_like(ids)}):
        plain, found = (model.generate(ids, **mask, max_new_tokens=8, do_sample=False, **more) for more in ({}, {"custom_generate": own}))
        assert torch.equal(plain, found)


def test_the_answer_is_sampled_with_do_sample(model, chat_tokenizer):
    inputs, own = inputs_of(chat_tokenizer), reliable("integrative_original", chat_tokenizer, QUESTIONS, k=1, seed=3)
    found = model.generate(**inputs, max_new_tokens=8, do_sample=True, temperature=0.9, top_k=7, custom_generate=own)
    engine, prompts = TransformersEngine(model, chat_tokenizer), [render_prompt(chat_tokenizer, Task(question)) for question in QUESTIONS]
    asking = {"max_new_tokens": 8, "room_tokens": 900, "names": (3, "generate"), "sampling": Sampling(temperature=0.9, top_k=7)}
    items = list(zip([Task(question) for question in QUESTIONS], prompts, strict=True))
    expected = decode(engine, items, ReliableDecoding("integrative_original", k=1), **asking, logprobs=lambda pairs: [])
    assert texts_of(chat_tokenizer, inputs, found) == [each.answer.text for each in expected]


def test_every_prompt_has_its_question_and_one_without_an_answer_is_followed_by_padding(model, chat_tokenizer):
    inputs = inputs_of(chat_tokenizer)
    with pytest.raises(UserError, match="there are 3 prompts for 1 questions: give a question for each"):
        model.generate(**inputs, max_new_tokens=8, custom_generate=reliable("majority", chat_tokenizer, ["?"]))
    own = reliable("abstain", chat_tokenizer, QUESTIONS, k=4, min_confidence=1.0, sampling=Sampling(temperature=5.0))
    found = model.generate(**inputs, max_new_tokens=8, do_sample=False, custom_generate=own)
    assert found.shape[1] == inputs["input_ids"].shape[1]
