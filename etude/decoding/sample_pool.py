"""Questions that are answered together, and samples of each, drawn when a method first asks for them and kept for the next one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from etude.engine.completion import Completion, Finish, Logprobs, Prefix, Stop
from etude.engine.context import View
from etude.engine.decoding import Heard
from etude.engine.joint import Join, Joint
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.models.embedding import Embed
from etude.randomness import seed_for
from etude.rollouts.prompts import render_prompt, without_control
from etude.tasks.task import Task

BACK = "Which question has this answer? Write the question alone."
"""How the model is asked back."""


@dataclass(frozen=True)
class DecodedAnswer:
    """What a method answers to a question."""

    text: str | None
    """None: it gives no answer."""
    finish: Finish | None = None
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Of the tokens, under what they were drawn from."""
    agreement: tuple[float, ...] = ()
    """Of a joint answer, for each token the share of its inputs whose own likeliest token it was."""
    confidence: float | None = None
    """In [0, 1], what the method makes of how far the samples agree; None where it says nothing of that."""
    notes: tuple[str, ...] = ()
    """What was left out, or why there is no answer."""

    @staticmethod
    def of(completion: Completion, **more: object) -> "DecodedAnswer":
        return DecodedAnswer(completion.text, completion.finish, completion.tokens, completion.logprobs, **more)  # type: ignore[arg-type]


class SamplePool:
    """The first k samples of a question are the same, whatever method asks, and for how many."""

    def __init__(
        self,
        engine: TransformersEngine,
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
        heard: Heard | None = None,
        embed: Embed | None = None,
        visits: Sequence[int] = (),
    ) -> None:
        """`samples`: how these are drawn, `sampling` how the answer is; `room_tokens`: how long an input may be for one of `max_new_tokens`
        to follow; `logprobs`: what the model itself says of an answer; `heard` is told of each token of an answer that is decoded, with the
        question's place, and of none that is chosen; `embed` tells a method that asks how alike answers are. Random numbers are keyed by
        `names` and the task, and by how often it came before (`visits`, none unless given).
        """
        self.engine, self.tasks, self.prompts = engine, tasks, prompts
        self.max_new_tokens, self.room_tokens, self.sampling = max_new_tokens, room_tokens, sampling
        self.names, self.stop_strings, self._logprobs, self._heard = names, tuple(stop_strings), logprobs, heard
        self.embed, self._visits = embed, visits or [0] * len(tasks)
        self.sampled_tokens = [0] * len(tasks)
        """Drawn so far for each question: samples, and what was made of them."""
        self._sampling = samples
        self._opened: list[Prefix] = []
        self._viewed: dict[View, list[Completion]] = {}
        self._samples: list[list[Prefix]] = [[] for _ in tasks]

    @property
    def opened(self) -> list[Prefix]:
        """The questions' own prompts."""
        self._opened = self._opened or self.engine.open(self.prompts)
        return self._opened

    def samples(self, k: int, questions: Sequence[int] | None = None) -> list[list[Prefix]]:
        """The first `k` of each question, or of these, by their places."""
        chosen = range(len(self.tasks)) if questions is None else questions
        places = [(place, number) for place in chosen for number in range(len(self._samples[place]), k)]
        if places:
            drawn = self.engine.extend(
                [self.opened[place] for place, _ in places],
                self.max_new_tokens,
                until=Stop(self.engine.end_tokens, self.stop_strings),
                sampling=self._sampling,
                keys=[self._key(place, "sample", number) for place, number in places],
            )
            for (place, _), prefix in zip(places, drawn, strict=True):
                self._samples[place].append(prefix)
                self.sampled_tokens[place] += len(prefix.own_tokens)
        return [self._samples[place][:k] for place in chosen]

    @property
    def drawn(self) -> list[list[Prefix]]:
        """The samples of each question that were asked for so far."""
        return self._samples

    def completions(self) -> list[tuple[Completion, ...]]:
        """The same as what was answered, with the keys that they were drawn by."""
        keys = [[self._key(place, "sample", number) for number in range(len(own))] for place, own in enumerate(self._samples)]
        both = [zip(*each, strict=True) for each in zip(self._samples, keys, strict=True)]
        return [tuple(self.engine.completion(prefix, key, self.stop_strings) for prefix, key in each) for each in both]

    def sample(self, prefix: Prefix) -> Completion:
        """One of them as what was answered."""
        return self.engine.completion(prefix, 0, self.stop_strings)

    def viewed(self, view: View, *, is_heard: bool = False) -> list[Completion]:
        """An answer to each question as it is, by another view of the model, computed once unless it is heard; `is_heard`: that it is the
        one that is given.
        """
        if view in self._viewed and not is_heard:
            return self._viewed[view]
        found = self.engine.generate(
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            keys=[[self._key(place, "answer")] for place in range(len(self.tasks))],
            stop_strings=self.stop_strings,
            view=view,
            heard=self._hears(range(len(self.tasks))) if is_heard else None,
        )
        for place, (completion,) in enumerate(found):
            self.sampled_tokens[place] += len(completion.tokens)
        self._viewed[view] = [completion for (completion,) in found]
        return self._viewed[view]

    def likelihoods(self, answers: Sequence[Sequence[tuple[int, ...]]]) -> list[list[float]]:
        """The mean log-prob of a token of each question's answers, by the model itself."""
        pairs = [(prompt, tokens) for prompt, own in zip(self.prompts, answers, strict=True) for tokens in own]
        return self._means(pairs, map(len, answers))

    def recovered(self, answers: Sequence[Sequence[str]]) -> list[list[float]]:
        """The mean log-prob of a token of each question, where the model is asked which question has such an answer."""
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
        """An answer to another task in each question's place; None where there is none, or where it has no room. `is_heard`: that it is the
        one that is given.
        """
        prompts = [task and render_prompt(self.engine.tokenizer, task) for task in tasks]
        places = [place for place, prompt in enumerate(prompts) if prompt and len(prompt) <= self.room_tokens]
        found = self.engine.generate(
            [prompts[place] or () for place in places],
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            keys=[[self._key(place, "answer")] for place in places],
            stop_strings=self.stop_strings,
            heard=self._hears(places) if is_heard else None,
        )
        answers: list[Completion | None] = [None] * len(tasks)
        for place, (completion,) in zip(places, found, strict=True):
            answers[place] = completion
            self.sampled_tokens[place] += len(completion.tokens)
        return answers

    def joint(self, inputs: Sequence[Sequence[Prefix]], join: Join, weights: Sequence[Sequence[float]] | None = None) -> list[Joint | None]:
        """An answer to the inputs in each question's place, by their weights, if these are given; None where there are none."""
        places = [place for place, own in enumerate(inputs) if own]
        answers: list[Joint | None] = [None] * len(inputs)
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
            heard=None if (told := self._hears(places)) is None else lambda place, token: told(place, 0, token),
        )
        for place, joint in zip(places, found, strict=True):
            answers[place] = joint
            self.sampled_tokens[place] += len(joint.completion.tokens)
        return answers

    def release(self) -> None:
        """Give the memory back; what was sampled can't be gone on with."""
        self.engine.release([*self._opened, *(prefix for own in self._samples for prefix in own)])

    def _hears(self, places: Sequence[int]) -> Callable[[int, int, int], None] | None:
        heard = self._heard
        return None if heard is None else lambda place, _, token: heard(places[place], token)

    def _key(self, place: int, *what: object) -> int:
        again = [self._visits[place]] if self._visits[place] else []
        return seed_for(*self.names, *what, self.tasks[place].key, *again)
