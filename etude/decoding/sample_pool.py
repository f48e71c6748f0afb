"""A pool of questions that are answered together, with samples that are created on demand and shared by methods."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from etude.engine.completion import Completion, Finish, JointCompletion, Logprobs, Prefix, Stop
from etude.engine.protocols import Join, OnToken, PrefixEngine, View
from etude.engine.sampling import GREEDY, Sampling
from etude.models.embedding import Embed
from etude.randomness import seed_for
from etude.rollouts.prompts import render_prompt, without_control
from etude.tasks.task import Task

BACK = "Which question has this answer? Write the question alone."
"""The prompt that asks for the question of an answer."""


@dataclass(frozen=True)
class DecodedAnswer:
    """A method's answer to a question."""

    text: str | None
    """None: no answer."""
    finish: Finish | None = None
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Log-probs of the tokens, under the distribution that they were sampled from."""
    agreement: tuple[float, ...] = ()
    """For each token of a joint answer the share of inputs whose own likeliest token it was."""
    confidence: float | None = None
    """Agreement of the samples in [0, 1], as the method measures it; None if it does not."""
    notes: tuple[str, ...] = ()
    """What was omitted, or why there is no answer."""

    @staticmethod
    def of(completion: Completion, **more: object) -> "DecodedAnswer":
        """Convert a completion."""
        return DecodedAnswer(completion.text, completion.finish, completion.tokens, completion.logprobs, **more)  # type: ignore[arg-type]


class SamplePool:
    """Questions with shared samples: the first k samples of a question are the same for every method and every k."""

    def __init__(
        self,
        engine: PrefixEngine,
        tasks: Sequence[Task],
        prompts: Sequence[tuple[int, ...]],
        *,
        samples: Sampling,
        max_new_tokens: int,
        room_tokens: int,
        logprobs: Logprobs,
        sampling: Sampling = GREEDY,
        names: Sequence[object] = (),
        stop_strings: Sequence[str] = (),
        heard: OnToken | None = None,
        embed: Embed | None = None,
        visits: Sequence[int] = (),
    ) -> None:
        """Prepare a pool; nothing is sampled yet.

        `samples` is the sampling of samples, `sampling` that of answers. `room_tokens` is the longest input that leaves `max_new_tokens`.
        `logprobs` computes the model's own likelihoods. `heard` is called with each token of an answer that is decoded (not chosen) and the
        question's index. `embed` embeds answers. Random numbers are keyed by `names`, the task, and the number of its earlier `visits` (0
        by default).
        """
        self.engine, self.tasks, self.prompts = engine, tasks, prompts
        self.max_new_tokens, self.room_tokens, self.sampling = max_new_tokens, room_tokens, sampling
        self.names, self.stop_strings, self._logprobs, self._heard = names, tuple(stop_strings), logprobs, heard
        self.embed, self._visits = embed, visits or [0] * len(tasks)
        self.sampled_tokens = [0] * len(tasks)
        """Tokens sampled so far for each question: samples and answers."""
        self._sampling = samples
        self._opened: list[Prefix] = []
        self._viewed: dict[View, list[Completion]] = {}
        self.taken: list[list[Prefix]] = [[] for _ in tasks]
        """The samples of each question so far."""

    @property
    def opened(self) -> list[Prefix]:
        """Return the prefilled prompts of the questions."""
        self._opened = self._opened or self.engine.open(self.prompts)
        return self._opened

    def samples(self, k: int, questions: Sequence[int] | None = None) -> list[list[Prefix]]:
        """Return the first `k` samples of each question, or of these questions by index."""
        chosen = range(len(self.tasks)) if questions is None else questions
        places = [(place, number) for place in chosen for number in range(len(self.taken[place]), k)]
        if places:
            sampled = self.engine.extend(
                [self.opened[place] for place, _ in places],
                self.max_new_tokens,
                until=Stop(self.engine.end_tokens, self.stop_strings),
                sampling=self._sampling,
                keys=[self._key(place, "sample", number) for place, number in places],
            )
            for (place, _), prefix in zip(places, sampled, strict=True):
                self.taken[place].append(prefix)
                self.sampled_tokens[place] += len(prefix.own_tokens)
        return [self.taken[place][:k] for place in chosen]

    def completions(self) -> list[tuple[Completion, ...]]:
        """Return the samples taken so far as completions, with the keys that they were sampled with."""
        keys = [[self._key(place, "sample", number) for number in range(len(own))] for place, own in enumerate(self.taken)]
        both = [zip(*each, strict=True) for each in zip(self.taken, keys, strict=True)]
        return [tuple(self.engine.completion(prefix, key, self.stop_strings) for prefix, key in each) for each in both]

    def sample(self, prefix: Prefix) -> Completion:
        """Convert one sample to a completion."""
        return self.engine.completion(prefix, 0, self.stop_strings)

    def viewed(self, view: View, *, is_heard: bool = False) -> list[Completion]:
        """Answer each question under another view of the model, once unless it is heard; `is_heard` marks the answer that is given."""
        if view in self._viewed and not is_heard:
            return self._viewed[view]
        found = self.engine.generate(
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            keys=[[self._key(place, "answer")] for place in range(len(self.tasks))],
            stop_strings=self.stop_strings,
            view=view,
            on_token=self._hears(range(len(self.tasks))) if is_heard else None,
        )
        for place, (completion,) in enumerate(found):
            self.sampled_tokens[place] += len(completion.tokens)
        self._viewed[view] = [completion for (completion,) in found]
        return self._viewed[view]

    def likelihoods(self, answers: Sequence[Sequence[tuple[int, ...]]]) -> list[list[float]]:
        """Return the mean log-prob per token of each question's answers under the model."""
        pairs = [(prompt, tokens) for prompt, own in zip(self.prompts, answers, strict=True) for tokens in own]
        return self._means(pairs, map(len, answers))

    def recovered(self, answers: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the mean log-prob per token of each question, given a prompt that asks which question has this answer."""
        tokenizer, pairs = self.engine.tokenizer, list[tuple[tuple[int, ...], tuple[int, ...]]]()
        for task, own in zip(self.tasks, answers, strict=True):
            question = tuple(tokenizer(task.question, add_special_tokens=False)["input_ids"])
            asked = [Task(f"{BACK}\n\n{without_control(tokenizer, text)}") for text in own]
            pairs += [(render_prompt(tokenizer, each)[-self.room_tokens :], question) for each in asked]
        return self._means(pairs, map(len, answers))

    def _means(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], sizes: Iterable[int]) -> list[list[float]]:
        means = iter([sum(logprobs) / len(logprobs) for logprobs in self._logprobs(pairs)])
        return [[next(means) for _ in range(size)] for size in sizes]

    def asked(self, tasks: Sequence[Task | None], *, is_heard: bool = False) -> list[Completion | None]:
        """Answer another task for each question; None without one, or if it has no room. `is_heard` marks the answer that is given."""
        prompts = [task and render_prompt(self.engine.tokenizer, task) for task in tasks]
        places = [place for place, prompt in enumerate(prompts) if prompt and len(prompt) <= self.room_tokens]
        found = self.engine.generate(
            [prompts[place] or () for place in places],
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            keys=[[self._key(place, "answer")] for place in places],
            stop_strings=self.stop_strings,
            on_token=self._hears(places) if is_heard else None,
        )
        answers: list[Completion | None] = [None] * len(tasks)
        for place, (completion,) in zip(places, found, strict=True):
            answers[place] = completion
            self.sampled_tokens[place] += len(completion.tokens)
        return answers

    def joint(
        self, inputs: Sequence[Sequence[Prefix]], join: Join, weights: Sequence[Sequence[float]] | None = None
    ) -> list[JointCompletion | None]:
        """Decode the inputs of each question jointly, weighted if weights are given; None without inputs."""
        places = [place for place, own in enumerate(inputs) if own]
        answers: list[JointCompletion | None] = [None] * len(inputs)
        if not places:
            return answers
        found = self.engine.extend_joint(
            [inputs[place] for place in places],
            self.max_new_tokens,
            sampling=self.sampling,
            keys=[self._key(place, "answer") for place in places],
            join=join,
            weights=[weights[place] for place in places] if weights else None,
            stop_strings=self.stop_strings,
            on_token=None if (hear := self._hears(places)) is None else lambda place, token: hear(place, 0, token),
        )
        for place, joint in zip(places, found, strict=True):
            answers[place] = joint
            self.sampled_tokens[place] += len(joint.completion.tokens)
        return answers

    def release(self) -> None:
        """Free the KV caches; samples can't be continued afterwards."""
        self.engine.release([*self._opened, *(prefix for own in self.taken for prefix in own)])

    def _hears(self, places: Sequence[int]) -> Callable[[int, int, int], None] | None:
        heard = self._heard
        return None if heard is None else lambda place, _, token: heard(places[place], token)

    def _key(self, place: int, *what: object) -> int:
        again = [self._visits[place]] if self._visits[place] else []
        return seed_for(*self.names, *what, self.tasks[place].key, *again)
