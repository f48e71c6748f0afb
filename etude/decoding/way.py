"""How prompts are answered: plainly, or by a decoding method, a search, or a thought of fixed length; without torch."""

from dataclasses import dataclass, field

from etude.decoding.search_settings import AnswerSearch
from etude.decoding.settings import ReliableDecoding
from etude.engine.settings import Sampling
from etude.errors import UserError
from etude.rollouts.search.settings import REFINE
from etude.rollouts.thinking import Thought


@dataclass(frozen=True)
class Way:
    """How a prompt is answered; at most one of `decoding`, `search` and `thought` is on."""

    sampling: Sampling
    max_new_tokens: int
    """Longest answer in tokens; with a thought the most that thought, cue and answer may have (`Thinking.most_tokens`)."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    decoding: ReliableDecoding = field(default_factory=ReliableDecoding)
    search: AnswerSearch = field(default_factory=AnswerSearch)
    search_samples: int = 1
    """search.method `samples`: answers to choose from."""
    thought: Thought = field(default_factory=Thought)

    @property
    def name(self) -> str:
        """The setting that changes how it is answered, and its value; empty if it is answered plainly."""
        return " and ".join(_names(self.decoding, self.search, self.thought))

    @property
    def gives_one(self) -> bool:
        """Whether there is one answer only."""
        return self.decoding.is_on or self.search.is_on

    @property
    def most_sampled(self) -> int:
        """The approximate number of whole answers that are sampled for one answer, at most."""
        if self.search.is_on:
            return self.search.answers(self.search_samples)
        return self.decoding.k if self.decoding.is_on and "k" not in self.decoding.unread else 1


def check_alone(decoding: ReliableDecoding, search: AnswerSearch, thought: Thought, *, stop: str = "", several: str = "") -> None:
    """Check that no two settings that exclude each other are set.

    `stop` and `several` name the settings of texts that end an answer and of several answers; empty: not set. Raises UserError.
    """
    by_method, by_search, by_thought = _named(decoding, search, thought)
    revised = by_search if search.method == REFINE else ""
    for group in (
        *((by_method, by_thought, by_search), (stop, by_search), (by_thought, stop)),
        *((by_method, several), (revised, several)),
    ):
        given = [name for name in group if name]
        if len(given) > 1:
            raise UserError(f"{given[0]} and {given[1]} exclude each other: leave one out")


def _names(decoding: ReliableDecoding, search: AnswerSearch, thought: Thought) -> list[str]:
    return [name for name in _named(decoding, search, thought) if name]


def _named(decoding: ReliableDecoding, search: AnswerSearch, thought: Thought) -> tuple[str, str, str]:
    """Return the names of a method, a search and a thought, each empty if it is off."""
    by_method = f"decoding.method {decoding.method}" if decoding.is_on else ""
    by_search = f"search.method {search.method}" if search.is_on else ""
    return by_method, by_search, "thought.budget_tokens" if thought.is_on else ""
