"""Settings of practice that make no sense together: each is told in one sentence, before anything is loaded.

What a setting may be by itself stands with it (`etude.training.settings`); here is what it may be beside the others.
"""

from etude.errors import UserError, at_least
from etude.learn.credit import CREDIT
from etude.learn.step_credit import STEP_CREDIT
from etude.rewards.combined import check_weights
from etude.training.settings import PracticeSettings

_MOST_VISITS = 32
"""Groups of one task in a step."""


def check_combinations(settings: PracticeSettings) -> None:
    """Raise UserError for the first combination that makes no sense."""
    _feedback(settings)
    _agreement(settings)
    _self_training(settings)
    _values_of_steps(settings)
    _groups(settings)
    _attempts(settings)
    _updates(settings)
    _dropout(settings)


def _values_of_steps(settings: PracticeSettings) -> None:
    """Credit and searches that need to know what steps or tokens are worth."""
    if settings.learn.credit in STEP_CREDIT and settings.learn.loss == "sequence":
        raise UserError(
            f"learn.loss sequence has one ratio for all tokens of an attempt, which undoes learn.credit {settings.learn.credit}, where "
            "steps differ: set the loss to clipped or capped"
        )
    is_valued = settings.explore.is_search or ("step_model" in settings.callbacks and settings.learn.credit == "difference")
    if settings.learn.credit in STEP_CREDIT and not is_valued:
        or_a_model = ", or list the callback step_model" if settings.learn.credit == "difference" else ""
        raise UserError(
            f"learn.credit {settings.learn.credit} values the steps of a search, but explore.search.method is "
            f"{settings.explore.search.method}: set the method to beam, mcts, tree or vine{or_a_model}, or learn.credit to one of "
            f"{', '.join(CREDIT)}"
        )
    search = settings.explore.search
    if search.value == "step_model" and "step_model" not in settings.callbacks:
        raise UserError("explore.search.value is step_model, but there is none: list the callback step_model, or set the value to rollouts")
    if search.value == "step_model" and search.method != "beam" and search.to_end:
        raise UserError(
            f"explore.search.value step_model has no effect on explore.search.method {search.method}, which draws whole answers: set "
            "the method to beam, or to mcts with explore.search.to_end false"
        )


def _groups(settings: PracticeSettings) -> None:
    """Credit and prompts that make something of a group as a whole."""
    explore, learn = settings.explore, settings.learn
    if learn.credit == "pass_at_k" and not explore.is_search and learn.pass_k >= explore.num_samples:
        raise UserError(
            f"learn.pass_k {learn.pass_k} leaves no two sets to compare of explore.num_samples {explore.num_samples} attempts: set it to "
            f"{explore.num_samples - 1} or less"
        )
    if explore.variants and learn.method == "preference":
        raise UserError(
            "explore.variants makes attempts with different prompts, which learn.method preference takes for answers to one: leave the "
            "variants out, or set learn.method to credit or imitation"
        )


def check_tasks_per_step(settings: PracticeSettings, tasks: int) -> None:
    """Raise UserError where a step would come to the same task very often; a few times is how one practises on a handful of tasks."""
    if settings.explore.tasks_per_step > _MOST_VISITS * tasks:
        raise UserError(
            f"explore.tasks_per_step is {settings.explore.tasks_per_step:,}, but there are {tasks:,} tasks to practise on: set it to "
            f"{tasks} (each once a step), to {_MOST_VISITS * tasks} at most, or give more tasks"
        )


def _attempts(settings: PracticeSettings) -> None:
    """What can be learned from the attempts that exploration makes."""
    settings.engine.check_search("explore.search.method", settings.explore.search.method)
    search = settings.explore.search
    if settings.feedback != "self_training":  # elsewhere an attempt is compared with others
        at_least("explore.num_samples", settings.explore.num_samples, 2)
    if settings.explore.is_search and search.finds_one:
        wider = [name for name in ("width", "beams", "simulations", "chains", "rounds") if name not in search.unread]
        raise UserError(
            f"explore.search.method {search.method} finds one answer to a task with these settings, and one compares with nothing: raise "
            f"explore.search.{' or '.join(wider)}"
        )
    if settings.n is not None:
        check_tasks_per_step(settings, settings.n)
    if settings.explore.turns > 1 and settings.learn.method == "preference":
        raise UserError(
            "explore.search.method refine makes attempts of several turns, which learn.method preference can't learn from: choose one of "
            "them"
        )
    if settings.learn.method == "preference" and settings.learn.preference.pairs == "step" and not settings.explore.is_search:
        raise UserError(
            "learn.preference.pairs step compares the steps of a search, but explore.search.method is "
            f"{settings.explore.search.method}: set the method to mcts, beam, tree or vine, or the pairs to outcome"
        )


def _updates(settings: PracticeSettings) -> None:
    """Groups for every update, rates that do not end before the updates do, demonstrations for a warm start."""
    if settings.learn.updates_per_epoch > settings.explore.tasks_per_step:
        raise UserError(
            f"learn.updates_per_epoch is {settings.learn.updates_per_epoch}, but a step has only explore.tasks_per_step = "
            f"{settings.explore.tasks_per_step} groups to share out among the updates: "
            f"set it to {settings.explore.tasks_per_step} or less"
        )
    updates, named = settings.learn.epochs * settings.learn.updates_per_epoch, "learn.epochs x learn.updates_per_epoch"
    if not settings.learn.restart:  # a restart sets the rate back to its beginning, so that only a step's own updates count
        updates, named = settings.steps * updates, f"steps x {named}"
    settings.learn.optimiser.check_length("learn.optimiser", updates, named)
    settings.preferences.optimiser.check_length("preferences.optimiser", settings.preferences.steps, "preferences.steps")
    settings.warm_start.optimiser.check_length("warm_start.optimiser", settings.warm_start.steps, "warm_start.steps")
    warm = settings.warm_start
    if warm.steps and not (warm.n or warm.path or settings.tasks.path or settings.tasks.dataset):
        raise UserError(f"warm_start.steps is {warm.steps} but there are no demonstrations: set warm_start.n or warm_start.path")


def _dropout(settings: PracticeSettings) -> None:
    """Dropout of adapters is for updates that imitate."""
    dropout, learn = settings.learn.lora.dropout, settings.learn
    imitates = learn.method == "imitation" and settings.steps
    if dropout and not imitates and not settings.warm_start.steps:
        raise UserError(
            f"learn.lora.dropout is {dropout}, but no update imitates: a policy gradient and pairs compare the model with itself, which "
            "dropout would change. Set it to 0, learn.method to imitation, or warm_start.steps to more than 0"
        )


def _feedback(settings: PracticeSettings) -> None:
    """The parts that a score is made of, and what they need."""
    if settings.feedback != "combined" and (settings.feedback_weights or settings.feedback_optional):
        name = "feedback_weights" if settings.feedback_weights else "feedback_optional"
        raise UserError(f"{name} belongs to feedback combined and has no effect on {settings.feedback}: leave it out, or set feedback")
    if settings.feedback == "combined" and not settings.feedback_weights:
        raise UserError("feedback combined needs its parts: set feedback_weights to something like {outcome: 1.0, judge: 0.5}")
    check_weights(settings.feedback_weights, settings.feedback_optional)
    if "random" in settings.feedback_parts and not (settings.evaluation.pass_n and settings.evaluation.num_samples):
        raise UserError("feedback random needs the rate of right samples: set evaluation.pass_n and evaluation.num_samples to 1 or more")
    if "form" in settings.feedback_parts and not settings.tasks.actions.is_on:
        raise UserError("feedback form scores tagged actions, but there are none: set tasks.actions.preset or tasks.actions.tags")
    _together(settings)
    if "judge" not in settings.feedback_parts:
        return
    if settings.judge.model is None:
        raise UserError(
            "feedback judge needs a judge: set judge.model, with judge.url for a model on an OpenAI-compatible server, without it for "
            "one to load here"
        )


def _agreement(settings: PracticeSettings) -> None:
    """What is learned from votes."""
    agreement = settings.agreement
    if "agreement" not in settings.feedback_parts:
        return
    if agreement.score == "soft" and settings.learn.method == "imitation":
        raise UserError(
            "agreement.score soft is 1 only where all attempts agree, and learn.method imitation learns from nothing less, nor from groups "
            "that are all alike: set the score to hard, or the method to credit or preference"
        )


def _self_training(settings: PracticeSettings) -> None:
    """An answer is made of plain attempts, and is no sample of the policy's."""
    explore = settings.explore
    if settings.feedback != "self_training":
        return
    settings.self_training.check(explore.num_samples)
    if settings.learn.method == "credit":
        raise UserError(
            "feedback self_training learns from answers that are no samples of the policy's, which learn.method credit can't: set "
            "learn.method to imitation or preference, or feedback to agreement"
        )
    if explore.sampling.is_greedy:
        raise UserError(
            "feedback self_training makes an answer of several attempts, but at temperature 0 all are equal: set "
            "explore.sampling.temperature above 0"
        )
    if explore.num_samples == 1 and not settings.learn.keep_all_right:
        raise UserError(
            "feedback self_training learns where attempts differ from the answer that is made of them, and explore.num_samples is 1: set "
            "learn.method to imitation and learn.keep_all_right to true, which imitates every answer, or explore.num_samples to 2 or more"
        )
    others = {
        f"explore.search.method {explore.search.method}": (explore.search.method != "samples", "samples"),
        "explore.stop_when_decided": (explore.stop_when_decided != "never", "never"),
        "explore.variants": (bool(explore.variants), "[]"),
        "tasks.actions.gate true": (settings.tasks.actions.gate, "false"),
    }
    for other, (is_set, instead) in others.items():
        if is_set:
            raise UserError(
                f"feedback self_training makes an answer of plain attempts, which {other} does not go with: set {other.split()[0]} to "
                f"{instead}, or feedback to agreement"
            )


def _together(settings: PracticeSettings) -> None:
    """Feedback that compares all attempts at a task has to have them at once."""
    explore = settings.explore
    alone = {
        "explore.search.method": explore.search.method != "samples",
        "explore.stop_when_decided": explore.stop_when_decided != "never",
        "tasks.actions.gate": settings.tasks.actions.gate,
    }
    name = next((name for name, is_set in alone.items() if is_set), None)
    compared = {
        "judge.how pairwise": ("judge" in settings.feedback_parts and settings.judge.how == "pairwise", "judge.how to rubric"),
        "feedback agreement": ("agreement" in settings.feedback_parts, "feedback to outcome"),
    }
    for what, (is_so, instead) in compared.items():
        if is_so and name:
            raise UserError(
                f"{what} compares all attempts at a task at once, but with {name} they come a few at a time: set {instead}, or leave "
                "that out"
            )
