"""Settings of practice that make no sense: each is one sentence with what to do instead, before anything is loaded.

What a callback does not go with is in its `excludes`, which tests/callbacks/test_callbacks_contract.py goes through.
"""

import shlex

import pytest

from etude.errors import UserError
from etude.settings.configuration import find_configuration
from etude.training.parse import parse_practice

IMITATE, PREFER = "--learn.method imitation ", "--learn.method preference "
VOTED, TAUGHT = "--reward majority_vote ", f"--reward self_training {IMITATE}"
COMBINED, DROPOUT = "--reward combined ", "--learn.lora.rank 2 --learn.lora.dropout 0.1 "


@pytest.mark.parametrize(
    ("given", "said"),
    [
        # searches, and attempts that are revised
        ("--search mtcs", "did you mean 'mcts'"),
        ("--search mcts --rollout.search.method beam", "given twice"),
        ("--search beam --rollout.early_stop_groups right", "rollout.early_stop_groups is for independent attempts"),
        ("--rollout.early_stop_groups bored", "early_stop_groups"),
        ("--learn.advantage treerl", "values the steps of a search"),
        ("--search tree --learn.advantage treerl --learn.loss gspo", "undoes learn.advantage treerl"),
        ("--rollout.search.width 0", "search.width must be at least 1, got 0"),
        ("--rollout.search.budget_tokens 0", "search.budget_tokens must be at least 1"),
        ("--rollout.search.steps.end tag", "steps.tags names none"),
        ("--search mcts --rollout.search.to_end false", "set rollout.search.method to mcts and rollout.search.value to"),
        ("--search refine --learn.advantage vineppo", "rollout.search.method is refine: set the method to beam"),
        ("--rollout.refine.turns 0", "refine.turns must be at least 1, got 0"),
        ("--rollout.refine.verifier_words no", "put {words} into it"),
        ("--rollout.refine.feedback gold", "rollout.refine.feedback: expected one of 'verifier', 'fixed', got gold"),
        ("--learn.turn_discount 1.5", r"learn.turn_discount must be in \[0, 1\], got 1.5"),
        ("--search tree --rollout.prompt_variants '[a]'", "rollout.prompt_variants asks .* rollout.search.method tree can't"),
        # what is learned, and how
        (f"{PREFER} --learn.preference.pairs step", "compares the steps of a search"),
        ("--learn.preference.pairs_per_task 0", "pairs_per_task must be at least 1"),
        (f"{PREFER} --learn.preference.loss simpo --learn.preference.ref_model_sync_steps 3", "has no reference"),
        (f"{PREFER} --learn.scale_lr_by_informative_groups true", "learn.scale_lr_by_informative_groups goes by the groups"),
        (f"{PREFER} --search refine", "makes attempts of several turns"),
        (f"{PREFER} --rollout.prompt_variants '[a]'", "prompt_variants makes .* set learn.method to policy_gradient or imitation"),
        ("--preferences.steps 3", "preferences.path names no file"),
        ("--preferences.path a.jsonl", "preferences.steps is 0"),
        ("--preferences.path a.jsonl --preferences.steps 3 --preferences.pairs_per_step 0", "pairs_per_step must be at least 1"),
        ("--learn.reset_to_initial_each_step true", "learn.reset_to_initial_each_step is for learn.method imitation"),
        ("--learn.include_solved_groups true", "learn.include_solved_groups is for learn.method imitation"),
        (
            f"{IMITATE} --learn.reset_to_initial_each_step true --learn.optimizer.lr_scheduler linear --learn.optimizer.decay_steps 1 "
            "--learn.epochs 3",
            r"may make 3 updates \(learn\.epochs x learn\.minibatches_per_epoch\)",
        ),
        ("--learn.advantage pass_at_k --learn.pass_k 8", "learn.pass_k 8 leaves no two sets .* set it to 7 or less"),
        (f"{DROPOUT} --warm_start.steps 0", "learn.lora.dropout is 0.1, but no update imitates"),
        (f"{DROPOUT} --warm_start.steps 0 {PREFER}", "learn.lora.dropout is 0.1, but no update imitates"),
        (
            f"{DROPOUT} {IMITATE} --replay.path x.jsonl --replay.ratio 0.1 --replay.kl_coef 0.1",
            "replay.kl_coef compares the model with its start, which learn.lora.dropout 0.1 changes: set one of them to 0",
        ),
        # rewards
        ("--max_unscored_share 1.5", r"max_unscored_share must be in \[0, 1\], got 1.5"),
        ("--reward judge", "reward judge needs a judge: set judge.model"),
        ("--reward judge --judge.modell x", "did you mean --judge.model"),
        ("--reward judge --judge.model x --judge.how pairwise --search mcts", "rollout.search.method they come"),
        (COMBINED, "reward combined needs its parts"),
        (f"{COMBINED} --reward_weights '{{verifiers: 1}}'", "unknown part of reward_weights 'verifiers': did you mean"),
        (f"{COMBINED} --reward_weights '{{verifier: 0}}'", "reward_weights.verifier must be above 0"),
        (f"{COMBINED} --reward_weights '{{verifier: 1, judge: 1}}'", "reward judge needs a judge"),
        (f"{COMBINED} --reward_weights '{{self_training: 1}}'", "part of reward_weights"),
        ("--reward_weights '{verifier: 1}'", "reward_weights belongs to reward combined and has no effect on verifier"),
        ("--reward_optional judge", "reward_optional belongs to reward combined"),
        ("--reward format", "reward format scores tagged actions, but there are none"),
        ("--reward random --evaluation.pass_n 0", "needs the rate of right samples"),
        ("--tasks.actions devide", "did you mean 'divide'"),
        (f"{VOTED} --search mcts", "compares all attempts at a task at once, but with rollout.search.method"),
        (f"{VOTED} --rollout.early_stop_groups right", "with rollout.early_stop_groups they come a few at a time: set reward to verifier"),
        (f"{VOTED} --majority_vote.score soft {IMITATE}", "majority_vote.score soft is 1 only where all attempts agree"),
        ("--reward self_training", "learn.method to imitation or preference"),
        (f"{TAUGHT} --self_training.decoding.method none", "integrative"),
        (f"{TAUGHT} --self_training.decoding.k 99", "set it to 8 or less"),
        (f"{TAUGHT} --self_training.by tokens --self_training.decoding.method majority", "self_training.by tokens"),
        (f"{TAUGHT} --self_training.min_share 1.5", "self_training.min_share must be in"),
        (f"{TAUGHT} --self_training.decoding.stop_agreed true", "stop_agreed saves no attempts"),
        (f"{TAUGHT} --rollout.sampling.temperature 0", "temperature 0"),
        (f"{TAUGHT} --rollout.search.method mcts", "rollout.search.method mcts"),
        (f"{TAUGHT} --rollout.prompt_variants '[\"\", Think.]'", "rollout.prompt_variants"),
        (f"{TAUGHT} --rollout.num_samples 1 --self_training.decoding.k 1", "learn.include_solved_groups to true"),
        # callbacks
        ("--step_model maybe", "step_model: expected true or false, or its settings, got maybe"),
        ("--step_model.backbone its", "one of 'policy', 'own'"),
        ("--learn.advantage vineppo", "or list the callback step_model, or learn.advantage to"),
        ("--search beam --rollout.search.value step_model", "list the callback step_model, or set the value to rollouts"),
        ("--search vine --rollout.search.value step_model --step_model true", "has no effect on rollout.search.method"),
        ("--step_model.trust 0.5 --step_model true", "trust 0.5 is read for independent attempts .* and learn.advantage to vineppo"),
        (f"{IMITATE} --rationalize.hint 'It is known.'", "must say where the answer stands"),
        ("--token_budget.tokens 0", "token_budget.tokens must be at least 1"),
        (f"{IMITATE} --synthetic_tasks proposer", "proposer rewards writing by degrees"),
        (f"{VOTED} --synthetic_tasks svs", "svs writes from right attempts, and reward majority_vote does not"),
        ("--curriculum.method levels --curriculum.own_levels 2", "levels raises the parameters of a family"),
        ("--implicit_reward.optimizer.learning_rate 1e-3", "implicit_reward.coef must be set"),
        ("--reward_shaping.weight 0.5", "reward_shaping.method must be set"),
        ("--overlong_penalty.penalty_weight 0.5", "overlong_penalty changes nothing"),
        ("--overlong_penalty.buffer_tokens 5", r"buffer_tokens is 5, more than an answer may have \(rollout.max_new_tokens 4\)"),
        ("--overlong_penalty.buffer_tokens 3 --synthetic_tasks.method svs", "set it to 0, or leave synthetic_tasks out"),
        ("--evaluation.thought.budgets '[-3]'", "evaluation.thought.budgets must be at least 0"),
        ("--gate.every 2", r"probe is false and gate\.max_divergence null, .*: set the probe to true, max_divergence to"),
        ("--gate.every 2 --retention.probe true --gate.action raise_replay", "there is no replay: set replay.path and replay.ratio"),
        ("--gate.max_accuracy_drop 0.1", r"callbacks\.gate\.every must be set: it has no default"),
        ("--replay.window_tokens 9", r"callbacks\.replay\.path must be set: it has no default"),
        ("--replay.path x", r"callbacks\.replay\.ratio must be set: it has no default"),
        ("--replay.path x --replay.ratio 1 --retention.text ./x", "the probe both name x"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(given, said):
    with pytest.raises(UserError, match=said):
        parse_practice(find_configuration("practice", "tiny"), shlex.split(given))


@pytest.mark.parametrize("given", [DROPOUT, f"{DROPOUT} --warm_start.steps 0 {IMITATE} --replay.path x.jsonl --replay.ratio 0.1"])
def test_dropout_is_for_updates_that_imitate(given):
    assert parse_practice(find_configuration("practice", "tiny"), shlex.split(given)).learn.lora.dropout == 0.1
