"""Controls of integrative decoding: inputs without the information of the question's own samples.

    original       k wordings of the question, without samples: only an ensemble
    unrelated      samples of another question: only a longer prompt
    same_sample    one sample, k times: only a second attempt

`best_logprob` chooses without joining. Identity: `original` with k = 1, the unchanged question, is plain decoding.
"""

from etude.decoding.joint_inputs import JointInput, Layout, build_inputs, decode_jointly, with_question
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.decoding.settings import AGAIN
from etude.engine.joint import product
from etude.errors import UserError
from etude.rollouts.prompts import render_prompt

WORDINGS = (
    "{question}",
    "Answer this question: {question}",
    "Please tell me: {question}",
    "Here is a question for you. {question}",
    "{question} Give your best answer.",
    "I would like to know: {question}",
    "Think well before you answer. {question}",
    "Question: {question}",
    "{question} What is the answer?",
    "Somebody asks: {question}",
    "Say what is true. {question}",
    "What would you answer to this? {question}",
    "{question} Be exact.",
    "Try to answer: {question}",
    "Let us see whether you know this. {question}",
    "Reply to the following. {question}",
)
"""Wordings of the question for the control without samples, in order."""


def integrative_same_sample(pool: SamplePool, again: str = AGAIN, layout: Layout = "turns") -> list[DecodedAnswer]:
    """Decode with the first sample in every input, which is the same as one input (control)."""
    return decode_jointly(pool, build_inputs(pool, pool.samples(1), again, layout), product, 1)


def integrative_unrelated(pool: SamplePool, k: int, again: str = AGAIN, layout: Layout = "turns") -> list[DecodedAnswer]:
    """Decode with the samples of the next different question in the pool (control).

    Raises UserError if there is only one question.
    """
    samples, keys = pool.samples(k), [task.key for task in pool.tasks]
    if len(set(keys)) == 1:
        raise UserError("decoding.method integrative_unrelated shows a question samples of another, but there is one question: ask two")
    following = [[(place + step) % len(keys) for step in range(1, len(keys))] for place in range(len(keys))]
    others = [next(other for other in own if keys[other] != keys[place]) for place, own in enumerate(following)]
    return decode_jointly(pool, build_inputs(pool, [samples[other] for other in others], again, layout), product, k)


def integrative_original(pool: SamplePool, k: int) -> list[DecodedAnswer]:
    """Decode with the first k of the 16 `WORDINGS`, repeated if k is larger (control)."""
    inputs: list[list[JointInput]] = []
    for task in pool.tasks:
        wordings = [WORDINGS[number % len(WORDINGS)].format(question=task.question) for number in range(k)]
        inputs.append([(None, render_prompt(pool.engine.tokenizer, with_question(task, wording))) for wording in wordings])
    return decode_jointly(pool, inputs, product, k)
