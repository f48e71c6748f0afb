"""Updates by preference pairs: the gradient of the loss itself, and of TRL's trainers on the same model and pairs."""

import copy
from dataclasses import replace

import pytest
import torch

from etude.learn.example import Example
from etude.learn.learner import Learner, OptimizerSettings
from etude.learn.losses.preference import Likelihoods, PreferenceLoss, preference_loss
from etude.learn.pairs import Pair
from etude.learn.preference import Preferring
from etude.learn.sequences import LIKELIHOOD, likelihoods, update_on_sequences

PAIRS = [
    Pair((5, 6, 7), (20, 21, 22, 23), (30, 31)),
    Pair((5, 6, 7), (20, 21, 24, 25), (30, 31)),
    Pair((9, 10), (40, 41, 42, 43), (40, 44, 45, 46, 47)),
]
LOSSES = [
    {"loss": "dpo"},
    {"loss": "dpo", "label_smoothing": 0.2},
    {"loss": "ipo"},
    {"loss": "kto"},
    {"loss": "simpo"},
    {"loss": "dpo", "rpo_alpha": 0.5},
]


def names(how):
    return ", ".join(map(str, how.values()))


def moved(model, seed=3):
    """A copy whose weights differ a little, so that policy and reference do."""
    copied, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return copied


def learner_of(model, seed=3, **options):
    reference = moved(model, seed).requires_grad_(False)
    learner = Learner(model, OptimizerSettings(learning_rate=1e-2), [LIKELIHOOD], reference=reference, **options)
    learner._step = lambda share: {}  # so that gradients stay to be looked at
    return learner


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def plain_logprob(model, prompt, completion):
    tokens = torch.tensor([[*prompt, *completion]])
    logprobs = model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(completion)[:, None]).sum()


def mismatched(policy, reference):
    """As KTO's middle: a prompt with the completions of the pair before it that has another prompt."""
    others = [(PAIRS[0], PAIRS[2]), (PAIRS[1], PAIRS[2]), (PAIRS[2], PAIRS[1])]
    two = [(own.prompt, completion) for own, other in others for completion in (other.chosen, other.rejected)]
    with torch.no_grad():
        return float(torch.stack([plain_logprob(policy, *each) - plain_logprob(reference, *each) for each in two]).mean())


@pytest.mark.parametrize("batch_tokens", [6, 2048])
@pytest.mark.parametrize("how", LOSSES, ids=names)
def test_two_passes_have_the_gradient_of_the_loss_however_they_are_cut(model_of, how, batch_tokens):
    loss, model, plain = PreferenceLoss(**how), model_of("llama"), model_of("llama")
    learner = learner_of(model, batch_tokens=batch_tokens)
    metrics = Preferring(learner, PAIRS, loss).update(PAIRS)

    def of(model, side):
        return torch.stack([plain_logprob(model, pair.prompt, getattr(pair, side)) for pair in PAIRS])

    with torch.no_grad():
        reference = [of(learner.reference, side) for side in ("chosen", "rejected")]
    lengths = [torch.tensor([len(getattr(pair, side)) for pair in PAIRS]) for side in ("chosen", "rejected")]
    seen = Likelihoods(of(plain, "chosen"), of(plain, "rejected"), *reference, *lengths, mismatched(plain, learner.reference))
    expected = preference_loss(seen, loss).mean()
    expected.backward()
    assert metrics["preference_loss"] == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(gradients(model), gradients(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_updates_raise_the_share_of_pairs_that_are_ahead(model_of):
    model = model_of("llama")
    learner = Learner(model, OptimizerSettings(learning_rate=1e-3), [LIKELIHOOD], reference=copy.deepcopy(model).requires_grad_(False))
    preferring = Preferring(learner, PAIRS, PreferenceLoss())
    first, *_, last = [preferring.update(PAIRS) for _ in range(20)]
    assert first["preference_ahead"] == pytest.approx(0, abs=1e-4) and last["preference_accuracy"] == 1.0
    assert last["preference_loss"] < first["preference_loss"] == pytest.approx(0.6931, abs=1e-4)


def test_no_pairs_change_nothing(model_of):
    learner = learner_of(model_of("llama"))
    assert Preferring(learner, [], PreferenceLoss()).update([]) == {}
    assert update_on_sequences(learner, [], lambda sums: (sums.sum(), {})) == {}


def test_a_prompt_alone_has_no_mismatched_completions(model_of):
    learner = learner_of(model_of("llama"))
    one = Preferring(learner, PAIRS[:2], PreferenceLoss("kto")).update(PAIRS[:2])
    assert one["preference_loss"] > 0


def test_a_refreshed_reference_is_the_model_as_it_was_then(model_of):
    model = model_of("llama")
    learner = Learner(model, OptimizerSettings(learning_rate=1e-2), [LIKELIHOOD], reference=copy.deepcopy(model).requires_grad_(False))
    Preferring(learner, PAIRS, PreferenceLoss()).update(PAIRS)
    example = [Example((5, 6, 7), (20, 21))]
    assert learner.logprobs(example) != learner.logprobs(example, reference=True)
    learner.refresh_reference()
    kept = learner.logprobs(example)
    assert learner.logprobs(example, reference=True) == kept
    Preferring(learner, PAIRS, PreferenceLoss()).update(PAIRS)
    assert learner.logprobs(example, reference=True) == kept != learner.logprobs(example)


# ---------------------------------------------------------------------- against TRL's trainers


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl")


def padded(rows):
    """Input ids, attention mask and completion mask of (prompt, completion) rows."""
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = [[*prompt, *completion] + [0] * (width - len(prompt) - len(completion)) for prompt, completion in rows]
    seen = [[1] * (len(prompt) + len(completion)) + [0] * (width - len(prompt) - len(completion)) for prompt, completion in rows]
    own = [[0] * len(prompt) + [1] * len(completion) + [0] * (width - len(prompt) - len(completion)) for prompt, completion in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(seen), "completion_mask": torch.tensor(own)}


def trainer_of(kind, model, reference, tokenizer, folder, columns, **options):
    from datasets import Dataset

    options |= {"output_dir": str(folder), "report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    kind, config = kind
    return kind(model, reference, args=config(**options), train_dataset=Dataset.from_dict(columns), processing_class=tokenizer)


CASES = {  # ours; TRL's
    "dpo": ({"loss": "dpo", "beta": 0.3}, {"loss_type": ["sigmoid"], "beta": 0.3}),
    "ipo": ({"loss": "ipo", "beta": 0.3}, {"loss_type": ["ipo"], "beta": 0.3}),
    "dpo, rpo_alpha": (
        {"loss": "dpo", "beta": 0.3, "rpo_alpha": 0.5},
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.3},
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_updates_by_pairs_have_the_gradient_of_trls_dpo_trainer(trl, model_of, tokenizer, tmp_path, case):
    how, theirs = CASES[case]
    model, plain = model_of("llama"), model_of("llama")
    learner = learner_of(model)
    pairs = [replace(pair, chosen=pair.chosen[:4]) for pair in PAIRS]  # of equal length: TRL's sft is a mean over all tokens
    metrics = Preferring(learner, pairs, PreferenceLoss(**how)).update(pairs)
    columns = {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}
    kind = (trl.DPOTrainer, trl.DPOConfig)
    trainer = trainer_of(kind, plain, copy.deepcopy(learner.reference), tokenizer, tmp_path, columns, **theirs)
    rows = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
    expected = trainer._compute_loss(trainer.model, padded(rows), False)
    expected.backward()
    assert metrics["preference_loss"] == pytest.approx(expected.item(), rel=1e-5)
    for ours, other in zip(gradients(model), gradients(trainer.model), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_updates_by_pairs_have_the_gradient_of_trls_kto_trainer(trl, model_of, tokenizer, tmp_path):
    model, plain = model_of("llama"), model_of("llama")
    learner, pairs = learner_of(model, seed=4), [PAIRS[0], PAIRS[2]]
    metrics = Preferring(learner, pairs, PreferenceLoss("kto", beta=0.3)).update(pairs)
    columns = {"prompt": ["a", "b"], "completion": ["b", "c"], "label": [True, False]}
    kind = (trl.KTOTrainer, trl.KTOConfig)
    options = {"beta": 0.3, "per_device_train_batch_size": 2}
    trainer = trainer_of(kind, plain, copy.deepcopy(learner.reference), tokenizer, tmp_path, columns, **options)
    rows = [(pair.prompt, completion) for pair in pairs for completion in (pair.chosen, pair.rejected)]
    others = [
        (pair.prompt, completion) for pair, other in zip(pairs, pairs[::-1], strict=True) for completion in (other.chosen, other.rejected)
    ]
    batch = padded(rows) | {f"KL_{name}": value for name, value in padded(others).items()} | {"label": torch.tensor([True, False] * 2)}
    expected = trainer._compute_loss(trainer.model, batch, False)
    expected.backward()
    assert trainer._metrics["eval"]["kl"][-1] > 0.1  # so that the middle is not its bound
    assert metrics["preference_loss"] == pytest.approx(expected.item(), rel=1e-5)
    for ours, other in zip(gradients(model), gradients(trainer.model), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


def test_simpo_is_trls_cpo_loss_with_its_margin(trl):
    from trl.experimental.cpo import CPOTrainer

    trainer = CPOTrainer.__new__(CPOTrainer)
    trainer.alpha, trainer.beta, trainer.simpo_gamma, trainer.label_smoothing, trainer.loss_type = 0.0, 2.0, 0.7, 0.0, "simpo"
    trainer.accelerator = type("Accelerator", (), {"device": torch.device("cpu")})()
    chosen, rejected = likelihoods([[-3.0, -2.0], [-4.0]]), likelihoods([[-1.0, -1.0, -4.0], [-5.0, -6.0]])
    lengths = torch.tensor([2, 1]), torch.tensor([3, 2])
    theirs, _, _ = trainer.cpo_loss(chosen / lengths[0], rejected / lengths[1])
    ours = preference_loss(Likelihoods(chosen, rejected, chosen, rejected, *lengths), PreferenceLoss("simpo", beta=2.0, simpo_gamma=0.7))
    torch.testing.assert_close(ours, theirs)
