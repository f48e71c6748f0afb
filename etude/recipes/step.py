"""The parts of a step of practice behind its attempts: learn from them, and what to keep of it."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from etude.explore.attempts import Group
from etude.feedback.verdict import Verdict
from etude.learn.credit import has_signal
from etude.learn.learner import BatchSize, Learner
from etude.learn.lessons import LESSONS, token_weights
from etude.learn.step_model import StepModel
from etude.learn.step_values import Foresight, beginnings_of, valued
from etude.ledger import Judged
from etude.recipes.settings import Exploration, Learning


def learn_from(learner: Learner, groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], learn: Learning) -> dict[str, float]:
    """All updates of a step; metrics are those of the last update, which has seen the most drift from the behaviour policy."""
    examples = LESSONS[learn.method](groups, verdicts, credit=learn.credit, with_anchor=learn.anchor > 0)
    if learn.anchor > 0:
        examples = learner.with_reference(examples)
    attempts = [attempt for group in groups for attempt in group.attempts]
    metrics: dict[str, float] = {}
    prompts = list(dict.fromkeys(attempt.prompt for attempt in attempts))  # of all groups, so that dropping some moves none to another part
    for _ in range(learn.epochs):
        for part in range(learn.updates_per_epoch):
            chosen = set(prompts[part :: learn.updates_per_epoch])
            own_tokens = [attempt.num_own_tokens for attempt in attempts if attempt.prompt in chosen]
            size = BatchSize(len(own_tokens), sum(own_tokens))
            metrics = learner.update([example for example in examples if example.prompt in chosen], size) or metrics
    return metrics


def foresee(step_model: StepModel | None, judged: Judged, explore: Exploration) -> tuple[list[list[Verdict]], dict[str, float | None]]:
    """The verdicts that credit goes by, and how well the step model knew them beforehand. Of independent attempts it says what their steps
    were worth, as far as it is to be trusted; of a search the tree does. Without a step model all is as it was.
    """
    if step_model is None:
        return judged.verdicts, {}
    flat = iter(step_model.values([beginnings_of(attempt) for group in judged.groups for attempt in group.attempts]))
    values = [[next(flat) for _ in group.attempts] for group in judged.groups]
    foresight, trust = Foresight.of(judged.verdicts, values), step_model.trust
    metrics = foresight.metrics(step_model.mean_score)
    step_model.observe([score for _, score in foresight.every], foresight.ordered())
    if explore.is_search:
        return judged.verdicts, metrics
    return valued(judged.verdicts, values, trust), metrics | {"step_model_trust": trust}


def observed(groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], first: int | None = None) -> dict[str, Any]:
    """What exploration and feedback showed, before any update.

    `entropy` is minus the mean log-prob of what was sampled, in nats a token, over all attempts: an unbiased estimate of the policy's.
    Attempts of a search are no independent samples: then all this is of what was found. Where some groups stop after their `first`
    attempts, everything that estimates the policy is taken from so many of each group; what was unscored or without signal, and the number
    of `attempts`, is of all.
    """
    all_scores = [[verdict.score for verdict in row] for row in verdicts]
    attempts = [attempt for group in groups for attempt in group.attempts[:first]]
    scores, verdicts = [row[:first] for row in all_scores], [row[:first] for row in verdicts]
    own_tokens = sum(attempt.num_own_tokens for attempt in attempts)
    known = [score for row in scores for score in row if score is not None]
    parsable = [verdict.parts["parsable"] for row in verdicts for verdict in row if "parsable" in verdict.parts]
    return {
        "score": sum(known) / len(known) if known else None,
        "pass_at_group": sum(any(score == 1.0 for score in row) for row in scores) / len(scores),
        "parsable": sum(parsable) / len(parsable) if parsable else None,
        "truncated": sum(attempt.finish == "length" for attempt in attempts) / len(attempts),
        "unscored": sum(score is None for row in all_scores for score in row),
        "groups": len(groups),
        "groups_without_signal": sum(not has_signal(row) for row in all_scores),
        "completion_tokens": own_tokens / len(attempts),
        "entropy": -sum(sum(attempt.logprobs) for attempt in attempts) / own_tokens,
        **({} if first is None else {"attempts": sum(map(len, all_scores))}),
    }


def attempt_rows(
    step: int, groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], learn: Learning, *, with_tokens: bool = False
) -> list[dict[str, Any]]:
    """Every attempt with its verdict and mean credit, as it is kept in the run folder; `with_tokens`, the ids of its own tokens too."""
    credit = [[fmean(own) for own in row] for row in token_weights(groups, verdicts, learn.credit)]
    return [
        {
            "step": step,
            "task": group.task.key,
            "question": group.task.question,
            "answer": group.task.answer,
            "index": index,
            "text": attempt.text,
            "score": verdict.score,
            "parsable": verdict.parts.get("parsable"),
            "message": verdict.message,
            "credit": credit[place][index] if learn.method == "credit" else None,
            "finish": attempt.finish,
            "tokens": attempt.num_own_tokens,
            "mean_logprob": sum(attempt.logprobs) / attempt.num_own_tokens,
            "key": attempt.key,
            **({"own_tokens": attempt.own_tokens} if with_tokens else {}),
        }
        for place, (group, row) in enumerate(zip(groups, verdicts, strict=True))
        for index, (attempt, verdict) in enumerate(zip(group.attempts, row, strict=True))
    ]
