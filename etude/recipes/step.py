"""The parts of a step of practice behind its attempts: learn from them, and what to keep of it."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

from etude.learn.example import Weights
from etude.learn.implicit_reward import ImplicitReward, token_returns, told_apart
from etude.learn.learner import BatchSize, Learner
from etude.learn.lessons import LESSONS, token_weights
from etude.learn.pairs import PAIRS
from etude.learn.preference import Preferring
from etude.learn.replay import Pull
from etude.learn.settings import Learning, Preference
from etude.learn.step_credit import STEP_CREDIT
from etude.learn.step_model import StepModel
from etude.learn.step_values import Foresight, beginnings_of, valued
from etude.learn.turn_credit import turns_with_signal
from etude.rewards.unscored import commonest_reason
from etude.rewards.verdict import Verdict, scores_of
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.collapse import agreement_metrics
from etude.rollouts.diversity import diversity
from etude.rollouts.settings import Exploration
from etude.rollouts.stopping import portions
from etude.tasks.votes import vote
from etude.training.ledger import Judged

Credit = list[list[Weights]]
"""Of every own token of every attempt, by group."""


def learn_from(
    learner: Learner,
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    learn: Learning,
    *,
    step: int = 1,
    added: Sequence[Sequence[Weights]] | None = None,
    replay: Pull | None = None,
) -> dict[str, float]:
    """All updates of a step, counted from 1; metrics are those of the last update, which has seen the most drift from the behaviour
    policy. `added` is credit of tokens beside that of `learn.credit`; `replay` gives what each update by lessons replays.
    """
    if learn.restart:
        learner.restart()
    if learn.method == "preference":
        update, seen = _by_pairs(learner, groups, verdicts, learn.preference, step)
    else:
        update, seen = _by_lessons(learner, groups, verdicts, learn, added, replay), {}
    metrics: dict[str, float] = {}
    for _ in range(learn.epochs):
        for part in range(learn.updates_per_epoch):
            metrics = update(slice(part, None, learn.updates_per_epoch)) or metrics
    return metrics | seen


Update = Callable[[slice], dict[str, float]]
"""One optimizer step on some of a step's groups; a part whose groups all lack signal changes nothing, and has no metrics, unless an anchor
holds on to their tokens."""


def _by_lessons(
    learner: Learner,
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    learn: Learning,
    added: Sequence[Sequence[Weights]] | None,
    replay: Pull | None,
) -> Update:
    """By credit or imitation."""
    how: dict[str, Any] = {"credit": learn.credit, "with_anchor": learn.anchor > 0, "turn_discount": learn.turn_discount}
    how |= {"pass_k": learn.pass_k}
    how |= {"length": learn.length}
    lessons = LESSONS[learn.method](groups, verdicts, **how, keep_all_right=learn.keep_all_right or learn.restart, added=added)
    if learn.anchor > 0:
        anchored = iter(learner.with_reference([example for lesson in lessons for example in lesson]))
        lessons = [[next(anchored) for _ in lesson] for lesson in lessons]
    has_signal = [any(example.policy is not None or example.imitate is not None for example in lesson) for lesson in lessons]
    prompts = [group.attempts[0].prompt for group in groups]
    distinct = list(dict.fromkeys(prompts))  # of all groups, so that dropping some moves none to another part

    def update(part: slice) -> dict[str, float]:
        chosen = set(distinct[part])
        mine = [place for place, prompt in enumerate(prompts) if prompt in chosen]
        own_tokens = [attempt.num_own_tokens for place in mine for attempt in groups[place].attempts if attempt.is_sample]
        size = BatchSize(len(own_tokens), sum(own_tokens))  # turns of one attempt add up
        own = [example for place in mine for example in lessons[place]]
        replayed = replay(size.tokens) if replay and own else []  # beside practice, not instead of it
        share = fmean(has_signal[place] for place in mine) if learn.rate_by_signal and mine else 1.0
        return learner.update([*own, *replayed], size, rate_share=share)

    return update


def _by_pairs(
    learner: Learner, groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], how: Preference, step: int
) -> tuple[Update, dict[str, float]]:
    """By pairs, with their number."""
    if how.needs_reference and how.refresh_every and step > 1 and (step - 1) % how.refresh_every == 0:
        learner.refresh_reference()
    pairs = [PAIRS[how.pairs](group, row, how.pairs_per_task) for group, row in zip(groups, verdicts, strict=True)]
    preferring = Preferring(learner, [pair for own in pairs for pair in own], how)
    return lambda part: preferring.update([pair for own in pairs[part] for pair in own]), {"pairs": sum(map(len, pairs))}


def added_credit(model: ImplicitReward | None, judged: Judged, learn: Learning) -> tuple[Credit | None, dict[str, float | None]]:
    """What is added to the credit of every token, if anything is: by a model of process rewards, with how well it told right from wrong
    beforehand, and to credit by step the outcome's.
    """
    parts: list[Credit] = []
    told: dict[str, float | None] = {}
    if model is not None:
        rewards = model.rewards(judged.groups)
        parts.append(_times(model.settings.coefficient, token_returns(rewards, judged.verdicts)))
        told = {"implicit_reward_auc_within": told_apart(rewards, judged.verdicts)}
    if learn.outcome_coefficient and learn.credit in STEP_CREDIT:
        parts.append(_times(learn.outcome_coefficient, token_weights(judged.groups, judged.verdicts, "centred")))
    return (_sum(parts) if parts else None), told


def _times(weight: float, credit: Credit) -> Credit:
    return [[tuple(weight * value for value in own) for own in row] for row in credit]


def _sum(parts: Sequence[Credit]) -> Credit:
    return [[tuple(map(sum, zip(*each, strict=True))) for each in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]


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


def first_half(explore: Exploration) -> int | None:
    """How many attempts of a group are independent samples of the policy where groups may stop early; None: all."""
    halves = portions(explore.num_samples, explore.stop_when_decided)
    return len(halves[0]) if len(halves) > 1 else None


def of_the_policy(groups: Sequence[Group], first: int | None = None) -> list[list[Attempt]]:
    """The attempts that the policy made unhelped, by group, at most the `first` ones."""
    return [[attempt for attempt in group.attempts if attempt.is_sample][:first] for group in groups]


def sampled_entropy(attempts: Sequence[Attempt]) -> float:
    """Minus the mean log-prob of what was sampled, in nats a token."""
    return -sum(sum(attempt.logprobs) for attempt in attempts) / sum(attempt.num_own_tokens for attempt in attempts)


def observed(
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    first: int | None = None,
    *,
    turn_discount: float = 1.0,
    with_parts: bool = False,
) -> dict[str, Any]:
    """What exploration and feedback showed, before any update.

    `entropy` is minus the mean log-prob of what was sampled, in nats a token, over all attempts: an unbiased estimate of the policy's.
    Attempts of a search are no independent samples: then all this is of what was found. Those that are no samples, since they saw the
    answer or were made of others, count in what was unscored or without signal alone. Where some groups stop after their `first` attempts,
    everything that estimates the policy is taken from so many of each group; what was unscored or without signal, and the number of
    `attempts`, is of all. Of revised attempts scores and ends are those of the last turn, tokens those of all turns; a group has signal
    where one of its turns has. `mean_reward` is of the attempts that have a score; `score` is the same number. `with_parts`, the mean of
    every named part of the verdicts that have it is `part_NAME`. How much attempts agree is of the last turns' answers.
    """
    all_scores = [[verdict.score for verdict in row] for row in verdicts]
    reason = commonest_reason(verdict for row in verdicts for verdict in row)
    without_signal = sum(not any(turns_with_signal(map(scores_of, row), turn_discount)) for row in verdicts)
    own = of_the_policy(groups, first)
    attempts = [attempt for row in own for attempt in row]
    verdicts = [row[: len(mine)] for row, mine in zip(verdicts, own, strict=True)]  # what was hinted stands behind
    scores = [[verdict.score for verdict in row] for row in verdicts]
    right = [[verdict.is_right for verdict in row] for row in verdicts]
    votes = [[vote(attempt.text, group.task) for attempt in row] for group, row in zip(groups, own, strict=True)]
    own_tokens = sum(attempt.num_own_tokens for attempt in attempts)
    known = [score for row in scores for score in row if score is not None]
    parsable = [verdict.parts["parsable"] for row in verdicts for verdict in row if "parsable" in verdict.parts]
    return {
        "score": sum(known) / len(known) if known else None,
        "mean_reward": sum(known) / len(known) if known else None,
        "pass_at_group": sum(map(any, right)) / len(right),
        "parsable": sum(parsable) / len(parsable) if parsable else None,
        "truncated": sum(attempt.finish == "length" for attempt in attempts) / len(attempts),
        "unscored": sum(score is None for row in all_scores for score in row),
        **({"unscored_reason": reason} if reason else {}),
        "groups": len(groups),
        "groups_without_signal": without_signal,
        "completion_tokens": own_tokens / len(attempts),
        "entropy": sampled_entropy(attempts),
        **diversity([[attempt.text for attempt in row] for row in own], votes, right),
        **agreement_metrics(votes),
        **({} if first is None else {"attempts": sum(map(len, all_scores))}),
        **(_parts([verdict for row in verdicts for verdict in row]) if with_parts else {}),
    }


def _parts(verdicts: Sequence[Verdict]) -> dict[str, float]:
    names = sorted({name for verdict in verdicts for name in verdict.parts} - {"parsable"})
    return {f"part_{name}": fmean(verdict.parts[name] for verdict in verdicts if name in verdict.parts) for name in names}


def attempt_rows(
    step: int,
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    learn: Learning,
    *,
    with_parts: bool = False,
    added: Sequence[Sequence[Weights]] | None = None,
    credited: Sequence[Sequence[Verdict]] | None = None,
    made: int = 0,
) -> list[dict[str, Any]]:
    """Every attempt with its verdict and mean credit (by the verdicts that were `credited`, if they are others, and with what was `added`),
    as it is kept in the run folder; `with_parts`, the parts of its verdict too. A revised one has all its `turns`, each with what the model
    was told of it; of the last `made` groups it is said what they are at.
    """
    weights = token_weights(groups, credited or verdicts, learn.credit, learn.turn_discount, added, learn.pass_k)
    credit = [[fmean(own) for own in row] for row in weights]
    return [
        {
            "step": step,
            "task": group.task.key,
            "question": group.task.question,
            "answer": group.task.answer,
            "index": index,
            "text": attempt.text,
            "score": verdict.score,
            "right": None if verdict.score is None else verdict.is_right,
            "parsable": verdict.parts.get("parsable"),
            "message": verdict.message,
            "credit": credit[place][index] if learn.method == "credit" and not learn.length.masks(attempt) else None,
            "finish": attempt.finish,
            "tokens": attempt.num_own_tokens,
            "mean_logprob": sum(attempt.logprobs) / attempt.num_own_tokens,
            "key": attempt.key,
            **({"view": attempt.view} if attempt.view != "full" else {}),
            **({"made": group.task.origin} if place >= len(groups) - made else {}),
            **({"parts": dict(verdict.parts)} if with_parts else {}),
            **({"turns": _turn_rows(attempt, verdict, weights[place][index], learn.method == "credit")} if attempt.turns > 1 else {}),
        }
        for place, (group, row) in enumerate(zip(groups, verdicts, strict=True))
        for index, (attempt, verdict) in enumerate(zip(group.attempts, row, strict=True))
    ]


def _turn_rows(attempt: Attempt, verdict: Verdict, weights: Weights, has_credit: bool) -> list[dict[str, Any]]:
    """What was written in each turn, and what the model was told of it."""
    texts, words = (*attempt.before[::2], attempt.text), (*attempt.before[1::2], None)
    lengths = [end - start for start, end in attempt.turn_spans]
    credit = [weights[end - 1] if has_credit else None for end in accumulate(lengths)]
    return [
        {"text": text, "score": score, "tokens": tokens, "credit": earned, "told": told}
        for text, score, tokens, earned, told in zip(texts, scores_of(verdict), lengths, credit, words, strict=True)
    ]
