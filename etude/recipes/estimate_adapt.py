"""Estimate an adaptation on this machine: run one update and score some questions, and multiply both. Selecting text, writing passages and
answers in words are not counted.
"""

from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from etude.device.limits import within_limits
from etude.device.machine import max_prompt_tokens, resolve_device
from etude.errors import UserError
from etude.evaluation.likelihood import LikelihoodQuestion, score_questions
from etude.evaluation.report.number_format import duration
from etude.knowledge.documents import read_documents
from etude.knowledge.mixture import windows
from etude.learn.example import Example, demonstration
from etude.learn.learner import Learner, Stream
from etude.learn.losses import negative_log_likelihood
from etude.models.adapters import add_lora
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.recipes.adapt import end_of_text, gather_asked
from etude.recipes.adapt_settings import AdaptSettings
from etude.recipes.estimate import peak_memory_bytes, seconds_of
from etude.suites.retention_probe import logprobs_of

_TRIED = 24
"""Number of questions to score, at equal distances."""


@dataclass(frozen=True)
class AdaptEstimate:
    """Estimate of a whole adaptation: seconds by stage, peak memory, size of the run folder."""

    questions: int
    measure_seconds: float
    """Seconds for both models together."""
    study_seconds: float
    memory_bytes: int
    disk_bytes: int

    def __str__(self) -> str:
        return (
            f"about {duration(self.measure_seconds + self.study_seconds)} here (study {duration(self.study_seconds)}, measuring "
            f"{self.questions:,} questions twice {duration(self.measure_seconds)}; selecting text, writing passages and answers in words "
            "aside), "
            f"{self.memory_bytes / 1e9:.1f} GB of memory, {self.disk_bytes / 1e9:.2g} GB of disk"
        )


def estimate_adaptation(settings: AdaptSettings, data: Path | None) -> AdaptEstimate:
    """Load the model, score some questions, and run one update on the first documents of the corpus."""
    place = resolve_device(settings.machine)
    of_suite, measured, _ = gather_asked(settings, data)
    asked = [question for own in of_suite.values() for question in own]
    model, tokenizer = load_model(settings.model, device=place.device)
    with within_limits(settings.machine):
        room, logprobs = max_prompt_tokens(model, 0), logprobs_of(model, place, settings.machine)
        texts = sum(min(settings.suite.text_tokens, _length(tokenizer, text)) for _, text in measured)
        tried = [asked[place * len(asked) // _TRIED] for place in range(_TRIED)] if len(asked) > _TRIED else asked
        kinds = [[each for each in tried if (len(each.choices) > 1) == is_choice] for is_choice in (True, False)]
        seconds = sum(seconds_of(partial(score_questions, own, tokenizer, logprobs, room)) for own in kinds if own)
        read = sum(_size(tokenizer, question) for question in tried)
        whole = sum(_size(tokenizer, question) for question in asked) + texts
        model = add_lora(model, settings.lora, seed_for(settings.seed, "lora"))
        streams = [Stream("imitate", negative_log_likelihood)]
        batch_tokens = settings.machine.max_tokens_per_microbatch
        learner = Learner(model, settings.study.optimizer, streams, dtype=place.dtype, batch_tokens=batch_tokens)
        examples = _batch(settings, tokenizer, room, data)
        learner.update(examples)  # warm-up, not timed
        update = seconds_of(partial(learner.update, examples)) / sum(len(example.completion) for example in examples)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    trained = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters() if parameter.requires_grad)
    checkpoints = len(settings.study.stages()) * weights + (2 * (weights + 2 * trained) if settings.save_steps else 0)
    return AdaptEstimate(
        len(asked),
        2 * seconds * whole / max(1, read),
        update * settings.study.tokens,
        peak_memory_bytes(place.device),
        weights + checkpoints,
    )


def _batch(settings: AdaptSettings, tokenizer: Any, room: int, data: Path | None) -> list[Example]:
    """Return the corpus text of one update, or all of it."""
    study = settings.study
    window = min(study.window_tokens, room - 1)
    texts = (tuple(tokenizer(each.text, add_special_tokens=False)["input_ids"]) for each in read_documents(settings.corpus, data))
    pieces = windows(texts, window, end_of_text(tokenizer))
    found = [demonstration(before, after) for before, after in islice(pieces, max(1, study.tokens_per_step // window))]
    if not found:
        raise UserError("the corpus has no document with text: name others with corpus.path")
    return found


def _length(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _size(tokenizer: Any, question: LikelihoodQuestion) -> int:
    """Return the number of tokens that are read to score a question."""
    return _length(tokenizer, question.prompt) + sum(2 * _length(tokenizer, choice) for choice in question.choices)
