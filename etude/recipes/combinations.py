"""Settings of practice that make no sense together: each is told in one sentence, before anything is loaded.

What a setting may be by itself stands with it (`etude.recipes.settings`); here is what it may be beside the others.
"""

from os.path import normpath
from typing import TYPE_CHECKING

from etude.errors import UserError, at_least
from etude.learn.credit import CREDIT
from etude.learn.optimiser import Optimiser
from etude.learn.step_credit import STEP_CREDIT
from etude.rewards.combined import check_weights

if TYPE_CHECKING:
    from etude.recipes.settings import PracticeSettings

_MOST_VISITS = 32
"""Groups of one task in a step."""


def check_combinations(settings: "PracticeSettings") -> None:
    """Raise UserError for the first combination that makes no sense."""
    _feedback(settings)
    _agreement(settings)
    _self_training(settings)
    _values_of_steps(settings)
    _diversity(settings)
    _attempts(settings)
    _updates(settings)
    _dropout(settings)
    _retention(settings)
    _collapse(settings)


def _values_of_steps(settings: "PracticeSettings") -> None:
    """Credit and searches that need to know what steps or tokens are worth."""
    if settings.learn.credit in STEP_CREDIT and settings.learn.loss == "sequence":
        raise UserError(
            f"learn.loss sequence has one ratio for all tokens of an attempt, which undoes learn.credit {settings.learn.credit}, where "
            "steps differ: set the loss to clipped or capped"
        )
    is_valued = settings.explore.is_search or (settings.step_model.on and settings.learn.credit == "difference")
    if settings.learn.credit in STEP_CREDIT and not is_valued:
        or_a_model = ", or step_model.on to true" if settings.learn.credit == "difference" else ""
        raise UserError(
            f"learn.credit {settings.learn.credit} values the steps of a search, but explore.search.method is "
            f"{settings.explore.search.method}: set the method to beam, mcts, tree or vine{or_a_model}, or learn.credit to one of "
            f"{', '.join(CREDIT)}"
        )
    if settings.step_model.trust is not None and (settings.explore.is_search or settings.learn.credit != "difference"):
        raise UserError(
            f"step_model.trust {settings.step_model.trust} has no effect on attempts of a search, nor on learn.credit "
            f"{settings.learn.credit}: leave it out, or set explore.search.method to samples and learn.credit to difference"
        )
    search = settings.explore.search
    if search.value == "step_model" and not settings.step_model.on:
        raise UserError("explore.search.value is step_model, but there is none: set step_model.on to true, or the value to rollouts")
    if search.value == "step_model" and search.method != "beam" and search.to_end:
        raise UserError(
            f"explore.search.value step_model has no effect on explore.search.method {search.method}, which draws whole answers: set "
            "the method to beam, or to mcts with explore.search.to_end false"
        )
    if settings.learn.implicit_reward.coefficient:
        others = {
            "explore.search.method refine": (settings.explore.turns > 1, "samples"),
            f"learn.method {settings.learn.method}": (settings.learn.method != "credit", "credit"),
            "learn.loss sequence": (settings.learn.loss == "sequence", "clipped or capped"),
        }
        for other, (is_set, instead) in others.items():
            if is_set:
                raise UserError(
                    f"learn.implicit_reward values every token of an answer, which {other} makes nothing of: set its coefficient to 0, or "
                    f"{other.split()[0]} to {instead}"
                )


def _diversity(settings: "PracticeSettings") -> None:
    """Credit, scores and prompts that make something of a group as a whole."""
    explore, learn = settings.explore, settings.learn
    if learn.rate_by_signal and learn.anchor:
        raise UserError(
            "learn.rate_by_signal makes an update small where few groups have signal, the pull of learn.anchor with it, which needs none: "
            "set one of them to its default"
        )
    if learn.credit == "pass_at_k" and not explore.is_search and learn.pass_k >= explore.num_samples:
        raise UserError(
            f"learn.pass_k {learn.pass_k} leaves no two sets to compare of explore.num_samples {explore.num_samples} attempts: set it to "
            f"{explore.num_samples - 1} or less"
        )
    if learn.shaping != "none" and (explore.turns > 1 or learn.credit in STEP_CREDIT):
        other = "explore.search.method refine, by turns" if explore.turns > 1 else f"learn.credit {learn.credit}, by steps"
        raise UserError(
            f"learn.shaping {learn.shaping} changes scores of whole answers, but credit comes from {other}: set the shaping to none, or "
            f"{'the method to samples' if explore.turns > 1 else 'the credit to one of ' + ', '.join(CREDIT)}"
        )
    if explore.variants and (learn.method == "preference" or settings.step_model.on):
        other, fix = ("learn.method preference", "credit or imitation") if learn.method == "preference" else ("step_model.on true", "false")
        raise UserError(
            f"explore.variants makes attempts with different prompts, which {other} takes for answers to one: leave the variants out, or "
            f"set {other.split()[0]} to {fix}"
        )


def check_tasks_per_step(settings: "PracticeSettings", tasks: int) -> None:
    """Raise UserError where a step would come to the same task very often; a few times is how one practises on a handful of tasks."""
    if settings.explore.tasks_per_step > _MOST_VISITS * tasks:
        raise UserError(
            f"explore.tasks_per_step is {settings.explore.tasks_per_step:,}, but there are {tasks:,} tasks to practise on: set it to "
            f"{tasks} (each once a step), to {_MOST_VISITS * tasks} at most, or give more tasks"
        )


def _attempts(settings: "PracticeSettings") -> None:
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
    _self_made(settings)
    if settings.explore.curriculum.method == "levels" and not settings.tasks.family:
        raise UserError("explore.curriculum levels raises the parameters of a family: set tasks.family, or the method to weakness")
    if settings.explore.rationalise and settings.learn.method == "credit":
        raise UserError(
            "explore.rationalise makes attempts that saw the answer, which learn.method credit can't learn from: set learn.method to "
            "imitation or preference, or explore.rationalise to false"
        )
    if settings.explore.turns > 1 and (settings.learn.method == "preference" or settings.step_model.on):
        name = "learn.method preference" if settings.learn.method == "preference" else "step_model.on true"
        raise UserError(f"explore.search.method refine makes attempts of several turns, which {name} can't learn from: choose one of them")
    if settings.explore.rationalise and settings.step_model.on:
        raise UserError("explore.rationalise makes attempts that saw the answer, which a step model must not learn from: set one to false")
    if settings.learn.length.is_on and settings.explore.turns > 1:
        raise UserError(
            "learn.length measures one answer, but explore.search.method refine makes attempts of several: set buffer_tokens to 0 and "
            "mask_truncated to false, or the method to samples"
        )
    if settings.learn.length.buffer_tokens and settings.explore.self_made.is_on:
        raise UserError(
            "learn.length.buffer_tokens lowers scores towards explore.max_new_tokens, which problems that the model writes do not go by: "
            "set it to 0, or explore.self_made to none"
        )
    if settings.learn.length.buffer_tokens > settings.explore.max_new_tokens:
        raise UserError(
            f"learn.length.buffer_tokens is {settings.learn.length.buffer_tokens}, more than an answer may have (explore.max_new_tokens "
            f"{settings.explore.max_new_tokens}): set it to {settings.explore.max_new_tokens} or less"
        )
    if settings.learn.method == "preference" and settings.learn.preference.pairs == "step" and not settings.explore.is_search:
        raise UserError(
            "learn.preference.pairs step compares the steps of a search, but explore.search.method is "
            f"{settings.explore.search.method}: set the method to mcts, beam, tree or vine, or the pairs to outcome"
        )


def _self_made(settings: "PracticeSettings") -> None:
    """Problems of its own are written beside plain attempts, and their answers compared as those of the tasks are."""
    explore = settings.explore
    if not explore.self_made.is_on:
        return
    others = {
        f"explore.search.method {explore.search.method}": (explore.search.method != "samples", "samples"),
        "explore.rationalise true": (explore.rationalise, "false"),
        "tasks.actions.gate true": (settings.tasks.actions.gate, "false"),
        "step_model.on true": (settings.step_model.on, "false"),
        "learn.implicit_reward": (bool(settings.learn.implicit_reward.coefficient), "coefficient 0"),
    }
    for other, (is_set, instead) in others.items():
        if is_set:
            raise UserError(
                f"explore.self_made.method {explore.self_made.method} adds problems to plain attempts, which {other} does not know: set "
                f"{other.split()[0]} to {instead}, or explore.self_made to none"
            )
    if explore.self_made.method == "proposer" and settings.learn.method == "imitation":
        raise UserError(
            "explore.self_made proposer rewards writing by degrees, of which learn.method imitation takes the highest alone: set the "
            "method to credit or preference, or explore.self_made to svs"
        )
    if explore.self_made.method == "svs" and "outcome" not in settings.feedback_parts:
        raise UserError(
            f"explore.self_made svs writes from right attempts, and feedback {settings.feedback} does not know which are: set feedback to "
            "outcome, or explore.self_made to proposer, which needs no answers"
        )


def _updates(settings: "PracticeSettings") -> None:
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
    _learns_to_the_end("learn.optimiser", settings.learn.optimiser, updates, named)
    if settings.learn.implicit_reward.coefficient:
        _learns_to_the_end("learn.implicit_reward.optimiser", settings.learn.implicit_reward.optimiser, settings.steps, "steps")
    _learns_to_the_end("preferences.optimiser", settings.preferences.optimiser, settings.preferences.steps, "preferences.steps")
    _learns_to_the_end("warm_start.optimiser", settings.warm_start.optimiser, settings.warm_start.steps, "warm_start.steps")
    warm = settings.warm_start
    if warm.steps and not (warm.n or warm.path or settings.tasks.path or settings.tasks.dataset):
        raise UserError(f"warm_start.steps is {warm.steps} but there are no demonstrations: set warm_start.n or warm_start.path")


def _dropout(settings: "PracticeSettings") -> None:
    """Dropout of adapters is for updates that imitate."""
    dropout, learn = settings.learn.lora.dropout, settings.learn
    imitates = learn.method == "imitation" and settings.steps
    if dropout and not imitates and not settings.warm_start.steps:
        raise UserError(
            f"learn.lora.dropout is {dropout}, but no update imitates: a policy gradient and pairs compare the model with itself, which "
            "dropout would change. Set it to 0, learn.method to imitation, or warm_start.steps to more than 0"
        )
    if dropout and imitates and settings.retention.replay.anchor:
        raise UserError(
            f"learn.lora.dropout is {dropout}, but retention.replay.anchor compares the model with its start, which dropout would change: "
            "set one of them to 0"
        )


def _collapse(settings: "PracticeSettings") -> None:
    """One thing at a time can be held."""
    if settings.collapse.action == "fall_back" and settings.retention.gate.every:
        raise UserError(
            "collapse.action fall_back and retention.gate both hold what to fall back to, by their own signs: set collapse.action to stop, "
            "or retention.gate.every to 0"
        )


def _retention(settings: "PracticeSettings") -> None:
    """What a gate and replay need of the others."""
    retention, learn = settings.retention, settings.learn
    if retention.gate.every and not retention.probe and retention.gate.max_divergence is None:
        raise UserError(
            f"retention.gate.every is {retention.gate.every}, but retention.probe is false and retention.gate.max_divergence none, so that "
            "the gate has nothing to go by: set the probe to true, max_divergence to some nats an answer, or every to 0"
        )
    if retention.gate.every and retention.gate.action == "raise_replay" and not retention.replay.ratio:
        raise UserError(
            "retention.gate.action raise_replay raises retention.replay.ratio, which is 0: set the ratio and retention.replay.path, or "
            "another action"
        )
    if retention.divergence_n and not settings.evaluation.num_samples:
        raise UserError(
            f"retention.divergence_n is {retention.divergence_n}, but evaluation.num_samples is 0: set it to 1 or more, or the other to 0"
        )
    if retention.replay.ratio and learn.method == "preference":
        raise UserError(
            f"retention.replay.ratio is {retention.replay.ratio}, but learn.method preference learns from pairs alone: set the ratio to 0, "
            "or the method to credit or imitation"
        )
    both = sorted({*map(normpath, retention.replay.path)} & {*map(normpath, [*retention.text, *retention.choices])})
    if both:
        raise UserError(
            f"retention.replay.path and the probe both name {both[0]}: what is replayed does not tell what is forgotten; name another file"
        )


def _feedback(settings: "PracticeSettings") -> None:
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


def _agreement(settings: "PracticeSettings") -> None:
    """What is learned from votes, and labelled tasks that are asked as those to practise on are."""
    agreement, explore = settings.agreement, settings.explore
    if "agreement" not in settings.feedback_parts:
        return
    if agreement.score == "soft" and settings.learn.method == "imitation":
        raise UserError(
            "agreement.score soft is 1 only where all attempts agree, and learn.method imitation learns from nothing less, nor from groups "
            "that are all alike: set the score to hard, or the method to credit or preference"
        )
    otherwise = {
        "explore.temperature_end": explore.temperature_end is not None,
        "explore.variants": bool(explore.variants),
        "explore.curriculum levels": explore.curriculum.method == "levels",
    }
    for name, is_set in otherwise.items():
        if agreement.probe_n and is_set:
            raise UserError(
                f"agreement.probe_n asks labelled tasks as tasks are asked at first, and practice comes to ask otherwise by {name}: set it "
                "to 0, or leave that out"
            )


def _self_training(settings: "PracticeSettings") -> None:
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
    if explore.sampling.is_greedy or explore.temperature_end == 0:
        raise UserError(
            "feedback self_training makes an answer of several attempts, but at temperature 0 all are equal: set "
            "explore.sampling.temperature and explore.temperature_end above 0"
        )
    if explore.num_samples == 1 and not settings.learn.keep_all_right:
        raise UserError(
            "feedback self_training learns where attempts differ from the answer that is made of them, and explore.num_samples is 1: set "
            "learn.method to imitation and learn.keep_all_right to true, which imitates every answer, or explore.num_samples to 2 or more"
        )
    others = {
        f"explore.search.method {explore.search.method}": (explore.search.method != "samples", "samples"),
        f"explore.curriculum.method {explore.curriculum.method}": (explore.curriculum.method != "none", "none"),
        "explore.stop_when_decided": (explore.stop_when_decided != "never", "never"),
        "explore.rationalise true": (explore.rationalise, "false"),
        "explore.variants": (bool(explore.variants), "[]"),
        "explore.self_made": (explore.self_made.is_on, "none"),
        "tasks.actions.gate true": (settings.tasks.actions.gate, "false"),
        "step_model.on true": (settings.step_model.on, "false"),
    }
    for other, (is_set, instead) in others.items():
        if is_set:
            raise UserError(
                f"feedback self_training makes an answer of plain attempts, which {other} does not go with: set {other.split()[0]} to "
                f"{instead}, or feedback to agreement"
            )


def _together(settings: "PracticeSettings") -> None:
    """Feedback that compares all attempts at a task has to have them at once."""
    explore = settings.explore
    alone = {
        "explore.search.method": explore.search.method != "samples",
        "explore.stop_when_decided": explore.stop_when_decided != "never",
        "explore.rationalise": explore.rationalise,
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


def _learns_to_the_end(name: str, optimiser: Optimiser, updates: int, named: str) -> None:
    if 0 < optimiser.decay_steps < updates:
        raise UserError(
            f"{name}.decay_steps is {optimiser.decay_steps}, but the run may make {updates} updates ({named}), the last ones at rate 0: "
            f"set it to 0 (a constant rate) or to {updates} or more"
        )
