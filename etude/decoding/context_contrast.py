"""Context-aware decoding: amplifies the difference between predictions with and without evidence.

    score(v) = (1 + strength) log p(v | evidence, question) - strength log p(v | question)        (Shi et al. 2024, NAACL,
                                                                                                 arXiv 2305.14739)

The evidence is the task's `metadata["evidence"]`, placed before the question. A task without evidence gets plain decoding, with a note.
Identity: strength 0 is plain decoding after the evidence.
"""

from etude.decoding.joint_inputs import with_question
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.engine.joint import product
from etude.rollouts.prompts import render_prompt, without_control


def context_contrast(pool: SamplePool, strength: float) -> list[DecodedAnswer]:
    """Answer each question by contrast with and without its evidence."""
    tokenizer, with_evidence = pool.engine.tokenizer, []
    for task, prompt in zip(pool.tasks, pool.prompts, strict=True):
        evidence = without_control(tokenizer, str(task.metadata.get("evidence") or "").strip())
        informed = render_prompt(tokenizer, with_question(task, f"{evidence}\n\n{task.question}")) if evidence else prompt
        with_evidence.append(informed if len(informed) <= pool.room_tokens else prompt)
    opened = pool.engine.open(with_evidence)
    is_informed = [informed != prompt for informed, prompt in zip(with_evidence, pool.prompts, strict=True)]
    inputs = [
        [informed, plain] if has_evidence else [plain]
        for informed, plain, has_evidence in zip(opened, pool.opened, is_informed, strict=True)
    ]
    weights = [[1 + strength, -strength] if has_evidence else [1.0] for has_evidence in is_informed]
    found = pool.joint(inputs, product, weights)
    pool.engine.release(opened)
    note = "it has no evidence that there is room for, and is answered as it is"
    return [
        DecodedAnswer.of(each.completion, notes=() if informed else (note,))
        for each, informed in zip(found, is_informed, strict=True)
        if each
    ]
