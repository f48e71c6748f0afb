"""What a checkpoint holds comes back, also where transformers writes weights under other names than it computes with."""

import pytest
import torch

from etude.learn.example import demonstration
from etude.learn.learner import Learner, Optimiser, Stream
from etude.learn.losses import negative_log_likelihood
from etude.recipes.checkpoints import load_checkpoint, save_checkpoint
from etude.recipes.settings import PracticeSettings
from etude.runs import RunFolder
from etude.tasks.sources import TaskSource


@pytest.mark.parametrize("family", ["llama", "qwen3", "lfm2", "qwen3-moe"])
def test_weights_and_progress_come_back(model_of, tokenizer, tmp_path, family):
    folder, model, other = RunFolder(tmp_path), model_of(family, seed=0), model_of(family, seed=1)
    settings = PracticeSettings(tasks=TaskSource(family="gcd"))
    learner = Learner(model, Optimiser(), [Stream("imitate", negative_log_likelihood)])
    learner.update([demonstration((5, 6), (7, 8))])
    save_checkpoint(folder, "step-00003", model, tokenizer, learner, {"order": 3, "step": 3}, settings=settings)
    fresh = Learner(other, Optimiser(), [Stream("imitate", negative_log_likelihood)])
    assert load_checkpoint(folder.checkpoint("step-00003"), other, fresh)["step"] == 3
    assert fresh.updates == 1
    for name, value in learner.state().items():
        assert torch.equal(fresh.state()[name], value), name
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
