"""Budget forcing: a thought of a fixed number of tokens, then an answer (s1, arXiv 2501.19393, section 3.1).

    thought    sampled like any answer; if it would end before the budget (by an end token, or by the cue that begins an answer), the end
               is removed and a word, "Wait", is inserted, after which it continues; at the budget it is cut
    answer     the cue, "The answer is", is inserted after the thought, and a few more tokens are sampled

The budget counts sampled and inserted tokens, except the cue. Departures: s1 has a marker for the end of thinking and forbids its token;
here an end is removed after it was sampled, so that the model needs no such token. s1 mostly sets how often a thought is extended; here its
length is set, which is its "maximum and minimum" at once. Inserted words are on a line of their own.

Cost: each removed end computes prompt and thought once more.

Identity: without a budget this is not called, and decoding is unchanged to the byte. A thought that does not end by itself is the prefix of
the plain answer with the same key, token for token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from etude.engine.completion import Completion, Finish
from etude.engine.protocols import Engine
from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.randomness import seed_for
from etude.rollouts.continuing import continued
from etude.rollouts.thinking import Thinking
from etude.rollouts.thinking import Thought as Thought
from etude.rollouts.thinking import Thoughts as Thoughts


@dataclass(frozen=True)
class Forced:
    """An answer after a thought of a fixed length."""

    text: str
    """Thought, cue and answer, as a verifier reads them."""
    finish: Finish
    """How the answer ended."""
    own_tokens: int
    """Tokens that the model sampled, without the cue, inserted words and removed ends."""
    ends_taken_back: int
    """How often the thought would have ended before its budget."""
    is_cut: bool
    """Whether the budget cut the thought before it ended by itself."""


def forced(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    how: Thinking,
    budget_tokens: int,
    *,
    sampling: Sampling,
    keys: Sequence[int],
) -> list[Forced]:
    """Return an answer to each prompt (repeats allowed) after a thought of `budget_tokens` tokens, with one key each."""
    if budget_tokens and not engine.tokenizer(how.continuation, add_special_tokens=False)["input_ids"]:
        raise UserError(f"thought.continuation {how.continuation!r} has no tokens, so that a thought would not go on: give a word")
    thoughts = [_Growing(prompt, budget_tokens) for prompt in prompts]
    going, rounds = [place for place, thought in enumerate(thoughts) if thought.room], 0
    while going:
        found = continued(
            engine,
            {place: thoughts[place].tokens for place in going},
            {place: seed_for(keys[place], "thought", rounds) if rounds else keys[place] for place in going},
            min(max(thoughts[place].room for place in going), engine.positions - max(len(thoughts[place].tokens) for place in going)),
            sampling,
            (how.cue,),
        )
        for place in going:
            thoughts[place].take(engine, found[place], how)
        going, rounds = [place for place in going if thoughts[place].room], rounds + 1
    asked = {place: thought.tokens + thought.line(engine, how.cue) for place, thought in enumerate(thoughts)}
    answer_keys = {place: seed_for(key, "answer") for place, key in enumerate(keys)}
    answers = continued(engine, asked, answer_keys, how.answer_tokens, sampling)
    return [thought.answered(engine, asked[place], answers[place]) for place, thought in enumerate(thoughts)]


class _Growing:
    """A thought in progress."""

    def __init__(self, prompt: tuple[int, ...], budget_tokens: int) -> None:
        self.prompt, self.budget_tokens = prompt, budget_tokens
        self.own: tuple[int, ...] = ()
        """Its tokens, inserted ones included."""
        self.num_given = self.ends_taken_back = 0
        self.has_ended = False

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.prompt + self.own

    @property
    def room(self) -> int:
        return self.budget_tokens - len(self.own)

    def take(self, engine: Engine, completion: Completion, how: Thinking) -> None:
        """Append the completion, up to the budget; an end before that is replaced by the continuation. A completion that was cut before
        the budget, because longer prompts of its batch reached the context limit, is only appended.
        """
        room, end = self.room, _end(engine, completion, how.cue)
        self.own += completion.tokens[: min(room, end)]
        self.has_ended |= end <= room and completion.finish == "stop"
        if end < room and completion.finish == "stop":
            given = self.line(engine, how.continuation)[: self.room]
            self.own += given
            self.num_given += len(given)
            self.ends_taken_back += 1

    def line(self, engine: Engine, words: str) -> tuple[int, ...]:
        """Return the tokens of words after the thought, on a line of their own."""
        before = engine.text_of(self.own)
        is_new = not before or before.endswith("\n") or words.startswith("\n")
        return tuple(engine.tokenizer(words if is_new else f"\n{words}", add_special_tokens=False)["input_ids"])

    def answered(self, engine: Engine, asked: tuple[int, ...], answer: Completion) -> Forced:
        return Forced(
            text=engine.text_of((*asked[len(self.prompt) :], *answer.tokens)),
            finish=answer.finish,
            own_tokens=len(self.own) - self.num_given + len(answer.tokens),
            ends_taken_back=self.ends_taken_back,
            is_cut=not self.has_ended,
        )


def _end(engine: Engine, completion: Completion, cue: str) -> int:
    """Return the number of tokens before the end of a thought: before its end token, or before the token in which the cue begins."""
    tokens = completion.tokens
    if completion.finish == "length":
        return len(tokens)
    if tokens[-1] in engine.end_tokens:
        return len(tokens) - 1
    number = len(tokens)
    while number and len(engine.text_of(tokens[:number])) > len(completion.text):
        number -= 1
    return number
