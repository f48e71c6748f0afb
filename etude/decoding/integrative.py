"""Integrative decoding: every token is drawn from what k inputs together find likely, each of which shows the model one of its own samples.

    r_1 .. r_k ~ p(. | x)
    q_j = [x ; r_j ; an instruction to answer again ; x]
    y_t = argmax_v sum_j log p(v | q_j, y_<t)                  (Cheng et al. 2025, ICLR, arXiv 2410.01556, by their code)

`layout` `one_message` is theirs, a message of the user's that holds the sample; with `turns`, a departure, the sample is what the model
said before, so that of each input only what stands behind the sample is computed. Samples that are the same are one input of more weight.
An empty sample says nothing and makes no input, nor does one that leaves no room for an answer.

With `stop_agreed` samples are drawn two at first, then twice as many, up to k; a question whose samples all give the same answer
(`etude.tasks.votes`) is answered by the first of them, and neither more samples nor inputs are made for it.

Controls, in which the inputs lack what the samples say:

    original       k wordings of the question, without samples: an ensemble alone
    unrelated      samples of another question: a longer prompt alone
    same_sample    one sample, k times: a second thought alone

Identity: `original` with k = 1, the question as it is, is plain decoding.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from etude.decoding.pool import Decoded, Pool
from etude.engine.completion import Prefix
from etude.engine.joint import Join, mean, product
from etude.errors import UserError
from etude.explore.prompts import behind_answer, render_feedback, render_prompt, without_control
from etude.tasks.task import Task
from etude.tasks.votes import vote

Layout = Literal["turns", "one_message"]

AGAIN = "Some of that may be wrong. Answer the question again, with what is right."

Input = tuple[Prefix | None, tuple[int, ...]]
"""What it stands behind, and the tokens that it has there."""

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
"""Of the control without samples, in order."""


def integrative(pool: Pool, k: int, again: str = AGAIN, layout: Layout = "turns", stop_agreed: bool = False) -> list[Decoded]:
    """The joint argmax of summed log-probs."""
    return _unless_agreed(pool, k, again, layout, stop_agreed, product)


def integrative_mean_prob(pool: Pool, k: int, again: str = AGAIN, layout: Layout = "turns", stop_agreed: bool = False) -> list[Decoded]:
    """As `integrative`, with the mean of probabilities instead of log-probs."""
    return _unless_agreed(pool, k, again, layout, stop_agreed, mean)


def integrative_same_sample(pool: Pool, again: str = AGAIN, layout: Layout = "turns") -> list[Decoded]:
    """Control: the first sample in every input, which is one input."""
    return _answers(pool, _of_samples(pool, pool.samples(1), again, layout), product)


def integrative_unrelated(pool: Pool, k: int, again: str = AGAIN, layout: Layout = "turns") -> list[Decoded]:
    """Control: the samples of the next question in the pool, which has to hold two at least."""
    samples = pool.samples(k)
    if len(samples) == 1:
        raise UserError("decoding.method integrative_unrelated shows a question samples of another, but there is one question: ask two")
    return _answers(pool, _of_samples(pool, [*samples[1:], samples[0]], again, layout), product)


def integrative_original(pool: Pool, k: int) -> list[Decoded]:
    """Control: the first k of `WORDINGS`, of which there are 16, then from the first again."""
    inputs: list[list[Input]] = []
    for task in pool.tasks:
        wordings = [WORDINGS[number % len(WORDINGS)].format(question=task.question) for number in range(k)]
        inputs.append([(None, render_prompt(pool.engine.tokenizer, reworded(task, wording))) for wording in wordings])
    return _answers(pool, inputs, product)


def _unless_agreed(pool: Pool, k: int, again: str, layout: Layout, stop_agreed: bool, join: Join) -> list[Decoded]:
    """A joint answer to each question, or with `stop_agreed` what its first samples agree on."""
    settled = _agreed(pool, k) if stop_agreed else {}
    left = [place for place in range(len(pool.tasks)) if place not in settled]
    samples = dict(zip(left, pool.samples(k, left), strict=True)) if left else {}
    inputs = _of_samples(pool, [samples.get(place, []) for place in range(len(pool.tasks))], again, layout)
    found = _answers(pool, inputs, join) if left else [Decoded(None)] * len(pool.tasks)
    return [settled.get(place, answer) for place, answer in enumerate(found)]


def _agreed(pool: Pool, k: int) -> dict[int, Decoded]:
    """The questions, by their places, whose first samples all give the same answer, of which there are two at least."""
    settled: dict[int, Decoded] = {}
    left, number = list(range(len(pool.tasks))), 2
    while left and number <= k:
        for place, samples in zip(list(left), pool.samples(number, left), strict=True):
            answers = [pool.sample(sample) for sample in samples]
            votes = {vote(answer.text, pool.tasks[place]) for answer in answers}
            if len(votes) == 1 and None not in votes:
                settled[place] = Decoded.of(answers[0], notes=(f"its first {number} samples agree",))
                left.remove(place)
        number = min(2 * number, k) if number < k else k + 1
    return settled


def reworded(task: Task, question: str) -> Task:
    """The task with another text as its last message."""
    if isinstance(task.prompt, str):
        return replace(task, prompt=question)
    return replace(task, prompt=(*task.prompt[:-1], {**task.prompt[-1], "content": question}))


def _of_samples(pool: Pool, samples: Sequence[Sequence[Prefix]], again: str, layout: Layout) -> list[list[Input]]:
    """For each question an input for each of its samples that is not empty."""
    inputs: list[list[Input]] = []
    for task, prompt, opened, own in zip(pool.tasks, pool.prompts, pool.opened, samples, strict=True):
        speaking = [sample for sample in own if pool.sample(sample).text.strip()]
        if layout == "one_message":
            inputs.append([(None, _in_one_message(pool, task, sample, again)) for sample in speaking])
            continue
        words = render_feedback(pool.engine.tokenizer, f"{again}\n\n{_asked(task)}".strip())
        ends = [behind_answer(pool.engine.tokenizer, pool.engine.end_tokens, sample.tokens[-1], words) for sample in speaking]
        inputs.append([])
        for sample, end in zip(speaking, ends, strict=True):
            is_own = sample.tokens[: len(prompt)] == prompt
            inputs[-1].append((sample, end) if is_own else (opened, (*sample.own_tokens, *end)))
    return inputs


def _in_one_message(pool: Pool, task: Task, sample: Prefix, again: str) -> tuple[int, ...]:
    said = without_control(pool.engine.tokenizer, pool.sample(sample).text.strip())
    parts = [task.question, said, again, task.question]
    return render_prompt(pool.engine.tokenizer, reworded(task, "\n\n".join(part for part in parts if part)))


def _asked(task: Task) -> str:
    return f"{task.question}\n\n{task.instruction}" if task.instruction else task.question


def _answers(pool: Pool, inputs: Sequence[Sequence[Input]], join: Join) -> list[Decoded]:
    """What each question's inputs answer together; of inputs that are the same one is computed."""
    whole = [[(*(before.tokens if before else ()), *tokens) for before, tokens in own] for own in inputs]
    fitting = {
        tokens: given
        for own, sequences in zip(inputs, whole, strict=True)
        for given, tokens in zip(own, sequences, strict=True)
        if len(tokens) <= pool.room_tokens
    }
    opened: dict[tuple[int, ...], Prefix] = {}
    for is_behind in (True, False):
        chosen = {tokens: given for tokens, given in fitting.items() if (given[0] is not None) == is_behind}
        behind = [before for before, _ in chosen.values() if before is not None]
        if chosen:
            opened |= zip(chosen, pool.engine.open([tokens for _, tokens in chosen.values()], behind or None), strict=True)
    groups = [[opened[tokens] for tokens in own if tokens in opened] for own in whole]
    found = pool.joint(groups, join)
    pool.engine.release(list(opened.values()))
    return [
        Decoded(None, notes=("no sample says anything that leaves room for an answer",))
        if joint is None
        else Decoded.of(joint.completion, agreement=joint.agreement)
        for joint in found
    ]
