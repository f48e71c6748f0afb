"""Losses and advantages against TRL's own code: the methods of a real `GRPOTrainer`, with prescribed log-probs and rewards.

`pytest tests/learn/test_against_trl.py -s` prints the largest differences.
"""

from collections import defaultdict
from functools import partial

import pytest
import torch

from etude.learn.advantages import ADVANTAGES
from etude.learn.logprobs import Outputs
from etude.learn.losses import POLICY_LOSSES, kl
from etude.learn.losses.tokens import Tokens, shares

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning")  # TRL's own use

CLIP_LOW, CLIP_HIGH, BETA, MOST_TOKENS = 0.2, 0.28, 0.04, 16
LENGTHS = [1, 7, 12, 3, 12, 5]
CASES = {
    # ours: loss, loss_agg_mode; TRL's: loss_type, importance_sampling_level
    "ppo/seq-mean-token-mean": ("ppo", "seq-mean-token-mean", "grpo", "token"),
    "ppo/token-mean (one batch)": ("ppo", "token-mean", "bnpo", "token"),
    "ppo/token-mean": ("ppo", "token-mean", "dapo", "token"),
    "ppo/seq-mean-token-sum-norm": ("ppo", "seq-mean-token-sum-norm", "dr_grpo", "token"),
    "gspo/seq-mean-token-mean": ("gspo", "seq-mean-token-mean", "grpo", "sequence"),
    "gspo/token-mean": ("gspo", "token-mean", "dapo", "sequence"),
    "gspo/seq-mean-token-sum-norm": ("gspo", "seq-mean-token-sum-norm", "dr_grpo", "sequence"),
    "cispo/token-mean": ("cispo", "token-mean", "cispo", "token"),
}


@pytest.fixture(scope="module")
def trainer(model_of, tokenizer, tmp_path_factory):
    from datasets import Dataset

    return trl.GRPOTrainer(
        model=model_of("llama"),
        reward_funcs=lambda prompts, **_: [0.0] * len(prompts),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=MOST_TOKENS,
            report_to=[],
            use_cpu=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=tokenizer,
    )


def random_batch():
    generator = torch.Generator().manual_seed(0)
    rows, width = len(LENGTHS), max(LENGTHS)
    behaviour_BT = torch.randn(rows, width, generator=generator, dtype=torch.float64) - 2
    logprobs_BT = behaviour_BT + 0.3 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    reference_BT = behaviour_BT + 0.3 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    mask_BT = torch.arange(width) < torch.tensor(LENGTHS)[:, None]
    advantages_B = torch.randn(rows, generator=generator, dtype=torch.float64)
    return logprobs_BT, behaviour_BT, reference_BT, mask_BT, advantages_B


def their_loss(trainer, loss_type, level, beta):
    logprobs_BT, behaviour_BT, reference_BT, mask_BT, advantages_B = random_batch()
    logprobs_BT.requires_grad_()
    trainer.loss_type, trainer.importance_sampling_level, trainer.beta = loss_type, level, beta
    trainer.epsilon_low, trainer.epsilon_high = CLIP_LOW, 1 + CLIP_HIGH if loss_type == "cispo" else CLIP_HIGH
    assert trainer.args.use_bias_correction_kl  # TRL's default
    trainer.args.steps_per_generation = trainer.current_gradient_accumulation_steps = 1
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs_BT, torch.zeros_like(logprobs_BT), None)
    trainer.model.train()
    ids_BT = torch.ones_like(mask_BT, dtype=torch.long)
    inputs = {
        "prompt_ids": ids_BT[:, :1],
        "prompt_mask": ids_BT[:, :1],
        "completion_ids": ids_BT,
        "completion_mask": mask_BT.long(),
        "advantages": advantages_B,
        "old_per_token_logps": behaviour_BT,
        "ref_per_token_logps": reference_BT,
        "num_items_in_batch": mask_BT.sum(),
    }
    try:
        loss = trainer._compute_loss(trainer.model, inputs)
    finally:
        del trainer._get_per_token_logps_and_entropies
    loss.backward()
    return loss.item(), logprobs_BT.grad[mask_BT]


def our_loss(name, loss_agg_mode, beta):
    logprobs_BT, behaviour_BT, reference_BT, mask_BT, advantages_B = random_batch()
    logprobs_BT.requires_grad_()
    sequence_N = mask_BT.nonzero()[:, 0]
    share_B = shares(LENGTHS, loss_agg_mode, constant_tokens=MOST_TOKENS, sequences=len(LENGTHS), tokens=sum(LENGTHS))
    tokens = Tokens(
        weights_N=advantages_B[sequence_N],
        shares_N=torch.tensor(share_B, dtype=torch.float64)[sequence_N],
        sequence_N=sequence_N,
        behaviour_N=behaviour_BT[mask_BT],
        reference_N=reference_BT[mask_BT],
    )
    outputs = Outputs(logprobs_BT[mask_BT], torch.zeros(sum(LENGTHS)))
    loss, _ = partial(POLICY_LOSSES[name], clip_low=CLIP_LOW, clip_high=CLIP_HIGH)(outputs, tokens)
    if beta:
        tokens.weights_N = torch.ones_like(tokens.weights_N)
        loss = loss + beta * kl(outputs, tokens)[0]
    loss.backward()
    return loss.item(), logprobs_BT.grad[mask_BT]


@pytest.mark.parametrize(
    ("case", "beta"), [(case, beta) for beta in (0.0, BETA) for case in CASES if not beta or CASES[case][3] == "token"]
)
def test_policy_losses_equal_trls_in_value_and_gradient(trainer, case, beta):
    """The divergence is compared where TRL takes a token's own ratio for it, as this package always does."""
    name, loss_agg_mode, loss_type, level = CASES[case]
    theirs, their_gradient = their_loss(trainer, loss_type, level, beta)
    ours, our_gradient = our_loss(name, loss_agg_mode, beta)
    difference, gradient_difference = abs(ours - theirs), (our_gradient - their_gradient).abs().max().item()
    title = f"{case} against TRL {loss_type}, {level} ratios, {'with' if beta else 'without'} kl"
    print(f"{title:78} value {difference:.1e}  gradient {gradient_difference:.1e}")
    assert their_gradient.abs().max() > 1e-3
    assert difference < 1e-6 and gradient_difference < 1e-6


@pytest.mark.filterwarnings("ignore:All reward functions returned None:UserWarning")
@pytest.mark.parametrize(("rule", "scale"), [("grpo", "group"), ("lite_ppo", "batch"), ("dr_grpo", "none")])
def test_advantages_equal_trls(trainer, rule, scale):
    groups = [[1.0, 0.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0], [0.3, None, 0.9, 0.1]]
    rewards = [reward for group in groups for reward in group]
    trainer.scale_rewards, trainer.beta = scale, 0.0
    trainer.reward_funcs = [lambda prompts, **_: rewards[: len(prompts)]]
    trainer.model.train()
    examples = [{"prompt": text} for text in "abc" for _ in range(4)]
    theirs = trainer._generate_and_score_completions(examples)["advantages"].double()
    ours = torch.tensor(ADVANTAGES[rule](groups), dtype=torch.float64).flatten()
    difference = (ours - theirs).abs().max().item()
    print(f"advantage {rule} against TRL scale_rewards={scale!r}: {difference:.1e}")
    assert difference < 1e-6
