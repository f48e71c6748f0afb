"""Check settings of practice that do not go together; each error is one sentence, raised before anything is loaded.

Checks of a single setting are next to it (`etude.training.settings`).
"""

from etude.errors import UserError, at_least
from etude.learn.advantages import ADVANTAGES
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.rewards.combined import check_weights
from etude.training.settings import PracticeSettings

_MOST_VISITS = 32
"""Most groups of one task in a step."""


def check_combinations(settings: PracticeSettings) -> None:
    """Raise UserError for the first invalid combination."""
    _feedback(settings)
    _majority_vote(settings)
    _self_training(settings)
    _values_of_steps(settings)
    _groups(settings)
    _attempts(settings)
    _updates(settings)
    _dropout(settings)


def _values_of_steps(settings: PracticeSettings) -> None:
    """Check advantages and searches that need values of steps or tokens."""
    if settings.learn.advantage in STEP_ADVANTAGES and settings.learn.loss == "gspo":
        raise UserError(
            f"learn.loss gspo has one ratio for all tokens of an attempt, which undoes learn.advantage {settings.learn.advantage}, where "
            "steps differ: set the loss to ppo or cispo"
        )
    is_valued = settings.rollout.is_search or ("step_model" in settings.callbacks and settings.learn.advantage == "vineppo")
    if settings.learn.advantage in STEP_ADVANTAGES and not is_valued:
        or_a_model = ", or list the callback step_model" if settings.learn.advantage == "vineppo" else ""
        raise UserError(
            f"learn.advantage {settings.learn.advantage} values the steps of a search, but rollout.search.method is "
            f"{settings.rollout.search.method}: set the method to beam, mcts, tree or vine{or_a_model}, or learn.advantage to one of "
            f"{', '.join(ADVANTAGES)}"
        )
    search = settings.rollout.search
    if search.value == "step_model" and "step_model" not in settings.callbacks:
        raise UserError("rollout.search.value is step_model, but there is none: list the callback step_model, or set the value to rollouts")
    if search.value == "step_model" and search.method != "beam" and search.to_end:
        raise UserError(
            f"rollout.search.value step_model has no effect on rollout.search.method {search.method}, which draws whole answers: set "
            "the method to beam, or to mcts with rollout.search.to_end false"
        )


def _groups(settings: PracticeSettings) -> None:
    """Check advantages and prompts that concern a group as a whole."""
    rollout, learn = settings.rollout, settings.learn
    if learn.advantage == "pass_at_k" and not rollout.is_search and learn.pass_k >= rollout.num_samples:
        raise UserError(
            f"learn.pass_k {learn.pass_k} leaves no two sets to compare of rollout.num_samples {rollout.num_samples} attempts: set it to "
            f"{rollout.num_samples - 1} or less"
        )
    if rollout.prompt_variants and learn.method == "preference":
        raise UserError(
            "rollout.prompt_variants makes attempts with different prompts, which learn.method preference takes for answers to one: leave "
            "the variants out, or set learn.method to policy_gradient or imitation"
        )


def check_tasks_per_step(settings: PracticeSettings, tasks: int) -> None:
    """Raise UserError if a step would visit a task very often; a few visits are normal with few tasks."""
    if settings.rollout.tasks_per_step > _MOST_VISITS * tasks:
        raise UserError(
            f"rollout.tasks_per_step is {settings.rollout.tasks_per_step:,}, but there are {tasks:,} tasks to practise on: set it to "
            f"{tasks} (each once a step), to {_MOST_VISITS * tasks} at most, or give more tasks"
        )


def _attempts(settings: PracticeSettings) -> None:
    """Check that the method can learn from the attempts."""
    settings.kv_cache.check_search("rollout.search.method", settings.rollout.search.method)
    search = settings.rollout.search
    if settings.reward != "self_training":  # other rewards compare attempts
        at_least("rollout.num_samples", settings.rollout.num_samples, 2)
    if settings.rollout.is_search and search.finds_one:
        wider = [name for name in ("width", "beams", "simulations", "chains", "rounds") if name not in search.unread]
        raise UserError(
            f"rollout.search.method {search.method} finds one answer to a task with these settings, and one compares with nothing: raise "
            f"rollout.search.{' or '.join(wider)}"
        )
    if settings.n is not None:
        check_tasks_per_step(settings, settings.n)
    if settings.rollout.turns > 1 and settings.learn.method == "preference":
        raise UserError(
            "rollout.search.method refine makes attempts of several turns, which learn.method preference can't learn from: choose one of "
            "them"
        )
    if settings.learn.method == "preference" and settings.learn.preference.pairs == "step" and not settings.rollout.is_search:
        raise UserError(
            "learn.preference.pairs step compares the steps of a search, but rollout.search.method is "
            f"{settings.rollout.search.method}: set the method to mcts, beam, tree or vine, or the pairs to outcome"
        )


def _updates(settings: PracticeSettings) -> None:
    """Check the groups for every update, the lengths of learning-rate schedules, and the demonstrations of a warm start."""
    if settings.learn.minibatches_per_epoch > settings.rollout.tasks_per_step:
        raise UserError(
            f"learn.minibatches_per_epoch is {settings.learn.minibatches_per_epoch}, but a step has only rollout.tasks_per_step = "
            f"{settings.rollout.tasks_per_step} groups to share out among the updates: "
            f"set it to {settings.rollout.tasks_per_step} or less"
        )
    named = "learn.epochs x learn.minibatches_per_epoch"
    named = named if settings.learn.reset_to_initial_each_step else f"steps x {named}"
    settings.learn.optimizer.check_length("learn.optimizer", settings.learn.most_updates(settings.steps), named)
    settings.preferences.optimizer.check_length("preferences.optimizer", settings.preferences.steps, "preferences.steps")
    settings.warm_start.optimizer.check_length("warm_start.optimizer", settings.warm_start.steps, "warm_start.steps")
    warm = settings.warm_start
    if warm.steps and not (warm.n or warm.path or settings.tasks.path or settings.tasks.dataset):
        raise UserError(f"warm_start.steps is {warm.steps} but there are no demonstrations: set warm_start.n or warm_start.path")


def _dropout(settings: PracticeSettings) -> None:
    """Check that dropout of adapters is used only with updates that imitate."""
    dropout, learn = settings.learn.lora.dropout, settings.learn
    imitates = learn.method == "imitation" and settings.steps
    if dropout and not imitates and not settings.warm_start.steps:
        raise UserError(
            f"learn.lora.dropout is {dropout}, but no update imitates: a policy gradient and pairs compare the model with itself, which "
            "dropout would change. Set it to 0, learn.method to imitation, or warm_start.steps to more than 0"
        )


def _feedback(settings: PracticeSettings) -> None:
    """Check the parts of the reward and their requirements."""
    if settings.reward != "combined" and (settings.reward_weights or settings.reward_optional):
        name = "reward_weights" if settings.reward_weights else "reward_optional"
        raise UserError(
            f"{name} belongs to reward combined and has no effect on {settings.reward}: leave it out, or set reward to combined"
        )
    if settings.reward == "combined" and not settings.reward_weights:
        raise UserError("reward combined needs its parts: set reward_weights to something like {verifier: 1.0, judge: 0.5}")
    check_weights(settings.reward_weights, settings.reward_optional)
    if "random" in settings.reward_parts and not (settings.evaluation.pass_n and settings.evaluation.num_samples):
        raise UserError("reward random needs the rate of right samples: set evaluation.pass_n and evaluation.num_samples to 1 or more")
    if "format" in settings.reward_parts and not settings.tasks.actions.is_on:
        raise UserError("reward format scores tagged actions, but there are none: set tasks.actions.preset or tasks.actions.tags")
    _together(settings)
    if "judge" not in settings.reward_parts:
        return
    if settings.judge.model is None:
        raise UserError(
            "reward judge needs a judge: set judge.model, with judge.url for a model on an OpenAI-compatible server, without it for "
            "one to load here"
        )


def _majority_vote(settings: PracticeSettings) -> None:
    """Check the majority vote against the learning method."""
    majority_vote = settings.majority_vote
    if "majority_vote" not in settings.reward_parts:
        return
    if majority_vote.score == "soft" and settings.learn.method == "imitation":
        raise UserError(
            "majority_vote.score soft is 1 only where all attempts agree, and learn.method imitation learns from nothing less, nor from "
            "groups that are all alike: set the score to hard, or the method to policy_gradient or preference"
        )


def _self_training(settings: PracticeSettings) -> None:
    """Check that self-training decodes from plain attempts, and that the method can learn from answers that the policy did not sample."""
    rollout = settings.rollout
    if settings.reward != "self_training":
        return
    settings.self_training.check(rollout.num_samples)
    if settings.learn.method == "policy_gradient":
        raise UserError(
            "reward self_training learns from answers that are no samples of the policy's, which learn.method policy_gradient can't: set "
            "learn.method to imitation or preference, or reward to majority_vote"
        )
    if rollout.sampling.is_greedy:
        raise UserError(
            "reward self_training makes an answer of several attempts, but at temperature 0 all are equal: set "
            "rollout.sampling.temperature above 0"
        )
    if rollout.num_samples == 1 and not settings.learn.include_solved_groups:
        raise UserError(
            "reward self_training learns where attempts differ from the answer that is made of them, and rollout.num_samples is 1: set "
            "learn.method to imitation and learn.include_solved_groups to true, which imitates every answer, or rollout.num_samples to 2 "
            "or more"
        )
    others = {
        f"rollout.search.method {rollout.search.method}": (rollout.search.method != "samples", "samples"),
        "rollout.early_stop_groups": (rollout.early_stop_groups != "never", "never"),
        "rollout.prompt_variants": (bool(rollout.prompt_variants), "[]"),
        "tasks.actions.gate true": (settings.tasks.actions.gate, "false"),
    }
    for other, (is_set, instead) in others.items():
        if is_set:
            raise UserError(
                f"reward self_training makes an answer of plain attempts, which {other} does not go with: set {other.split()[0]} to "
                f"{instead}, or reward to majority_vote"
            )


def _together(settings: PracticeSettings) -> None:
    """Check that rewards which compare all attempts at a task get them at once."""
    rollout = settings.rollout
    alone = {
        "rollout.search.method": rollout.search.method != "samples",
        "rollout.early_stop_groups": rollout.early_stop_groups != "never",
        "tasks.actions.gate": settings.tasks.actions.gate,
    }
    name = next((name for name, is_set in alone.items() if is_set), None)
    compared = {
        "judge.how pairwise": ("judge" in settings.reward_parts and settings.judge.how == "pairwise", "judge.how to rubric"),
        "reward majority_vote": ("majority_vote" in settings.reward_parts, "reward to verifier"),
    }
    for what, (is_so, instead) in compared.items():
        if is_so and name:
            raise UserError(
                f"{what} compares all attempts at a task at once, but with {name} they come a few at a time: set {instead}, or leave "
                "that out"
            )
