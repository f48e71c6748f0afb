"""Tasks that the policy writes in a step in addition to the given ones: written, checked and solved, with rewards for writing and solving.

svs        variational problem synthesis (SvS, arXiv 2508.14029, Alg. 1): from right attempts at a task whose share of right attempts lies
           in `source_window`, the policy writes variants without seeing the task; the task's answer is theirs. The task's verifier scores
           attempts at a variant; writing has reward 1 if the share of right ones lies in `window`, else 0 (rewarding any right attempt
           would reward a problem that tells its answer)
proposer   the policy writes problems like those of the step; an answer counts as right if `min_share` of the attempts give it
           (`etude.rewards.majority_vote`). With p the share that give the majority answer, the reward of writing is learnability
           4 p (1 - p), which is 1 if half agree and 0 if all do (p (1 - p) of Foster and Foerster 2025, arXiv 2502.12272, in [0, 1];
           R-Zero, arXiv 2508.05004, has 1 - 2 |p - 1/2|)

A flawed problem (`etude.rollouts.synthetic.problems`) is not solved, and writing it has reward 0. Attempts at the given tasks, at problems
and at writing them are groups of one update. Departures from SvS: examples are shown, since small models do not write problems without
them; at most `sources` attempts per step are used, chosen by seed, to limit the cost of a step.

Identity: a step without a source equals a step without this callback.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from etude.errors import UserError
from etude.evaluation.report.panels import Panel
from etude.randomness import seed_for
from etude.rewards.majority_vote import MajorityVoteReward, MajorityVoteSettings
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.synthetic.problems import FLAWS, asking, flaw_of, read_problem
from etude.rollouts.synthetic.prompts import Example, writing_of_problem, writing_of_variant
from etude.rollouts.synthetic.settings import SyntheticTasksSettings
from etude.settings.unused import Read
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.votes import vote
from etude.training.callback import Callback, Excludes

if TYPE_CHECKING:
    from etude.engine.protocols import PrefixEngine
    from etude.evaluation.measure import Verify
    from etude.rollouts.settings import RolloutSettings
    from etude.training.practice_run import PracticeRun


class Source(NamedTuple):
    """The source of a group of problems."""

    task: Task
    """The task with the problems' answer, verifier and messages; for a proposer, an example of the kind, without an answer."""
    writing: Task
    shown: tuple[Task, ...]
    """The tasks that a problem is compared with as possible copies."""


@dataclass
class Writer:
    """Writes and solves the tasks of a step."""

    how: SyntheticTasksSettings
    rollout: "RolloutSettings"
    engine: "PrefixEngine"
    judge: "Verify"
    """Scores attempts at variants."""
    render: Callable[[Task], tuple[int, ...]]
    room_tokens: int
    """Longest prompt that leaves room for the longest answer or problem."""
    seed: int
    measured: Collection[str]
    """Keys of the evaluation's items."""

    def add_to(self, batch: RolloutBatch) -> None:
        """Add groups to a step: for each source the writing, then for each problem the attempts at it."""
        clock, step = time.perf_counter(), batch.step
        sources = self._sources(batch)
        written = self._sampled([source.writing for source in sources], self.how.problems, step, "write", is_writing=True)
        problems, flaws = self._read(sources, written)
        places = [(place, number) for place, row in enumerate(problems) for number, problem in enumerate(row) if problem]
        tasks = [task for row in problems for task in row if task]
        solved = self._sampled(tasks, self.rollout.num_samples, step, "solve")
        sampled = time.perf_counter() - clock
        rewards = self._rewarded(solved)
        worth = dict(zip(places, map(self._worth, rewards), strict=True))
        scores = [[worth.get((place, number), 0.0) for number in range(len(group.attempts))] for place, group in enumerate(written)]
        batch.seconds["rollout_seconds"] += sampled
        batch.seconds["feedback_seconds"] += time.perf_counter() - clock - sampled
        of_writing = [
            [Reward(score, message=flaw and f"the problem is flawed: {flaw}") for score, flaw in zip(*both, strict=True)]
            for both in zip(scores, flaws, strict=True)
        ]
        batch.metrics |= _counts([flaw for row in flaws for flaw in row], scores, rewards)
        batch.groups = [*batch.groups, *written, *solved]
        batch.rewards = [*batch.rewards, *of_writing, *rewards]
        batch.num_synthetic = len(written) + len(solved)

    def _sources(self, batch: RolloutBatch) -> list[Source]:
        """Return the step's sources, sampled by seed among those with room; keys count the steps before."""
        how = self.how
        found = WAYS[how.method].sources(self, batch)
        fitting = [source for source in found if len(self.render(source.writing)) <= self.room_tokens]
        order = sorted(range(len(fitting)), key=lambda place: seed_for(self.seed, "sources", batch.step - 1, place))
        return [fitting[place] for place in sorted(order[: how.sources])]

    def variations(self, batch: RolloutBatch) -> list[Source]:
        """Return a source for each distinct right attempt at a task in the window; its examples are right attempts at other tasks."""
        right = [_right(group, row) for group, row in zip(batch.groups, batch.rewards, strict=True)]
        solved = [(group.task, own[0]) for group, own in zip(batch.groups, right, strict=True) if own]
        window, found = self.how.source_window, []
        for place, (group, row, own) in enumerate(zip(batch.groups, batch.rewards, right, strict=True)):
            known = sum(reward.score is not None for reward in row)
            is_in = own and window.admits(sum(reward.is_right for reward in row), known)
            for text in dict.fromkeys(attempt.text for attempt in own) if is_in else ():
                others = [(task, attempt) for task, attempt in solved if task.key != group.task.key]
                shots = self._drawn(others, batch.step - 1, "shots", place, text)
                examples: list[Example] = [(task.question, attempt.text) for task, attempt in shots]
                writing = writing_of_variant(group.task, text, examples)
                found.append(Source(group.task, writing, (group.task, *(task for task, _ in shots))))
        return found

    def proposals(self, batch: RolloutBatch) -> list[Source]:
        """Return sources with examples among the step's tasks; problems have the form of the first example, and no known answer."""
        tasks = list({group.task.key: group.task for group in batch.groups}.values())
        found = []
        for number in range(self.how.sources):
            shown = self._drawn(tasks, batch.step - 1, "proposal", number)
            own = replace(shown[0], answer=None)
            found.append(Source(own, writing_of_problem(own, [task.question for task in shown]), tuple(shown)))
        return found

    def _drawn(self, items: Sequence[Any], *names: object) -> list[Any]:
        """Sample the examples to show, by seed."""
        order = sorted(range(len(items)), key=lambda place: seed_for(self.seed, *names, place))
        return [items[place] for place in order[: self.how.shots]]

    def _sampled(self, tasks: Sequence[Task], number: int, step: int, kind: str, *, is_writing: bool = False) -> list[Group]:
        if not tasks:
            return []
        longest = self.how.max_new_tokens if is_writing else self.rollout.max_new_tokens
        sizes: dict[str, Any] = {"num_samples": number, "max_new_tokens": longest, "sampling": self.rollout.sampling}
        from etude.rollouts.samples import sample_groups

        prompts = [self.render(task) for task in tasks]
        return sample_groups(self.engine, tasks, prompts, **sizes, names=(self.seed, step, kind))

    def _read(self, sources: Sequence[Source], written: Sequence[Group]) -> tuple[list[list[Task | None]], list[list[str]]]:
        """Return the problem of each text, None if it is flawed, and the flaw."""
        problems: list[list[Task | None]] = []
        flaws: list[list[str]] = []
        keys: set[str] = set()
        for source, group in zip(sources, written, strict=True):
            problems.append([])
            flaws.append([])
            for attempt in group.attempts:
                text, is_finished = read_problem(attempt.text, attempt.finish)
                problem = asking(source.task, text, origin="a problem of its own")
                checks: dict[str, Any] = {"written": keys, "measured": self.measured, "max_overlap": self.how.max_overlap}
                flaw = flaw_of(problem, is_finished=is_finished, shown=source.shown, **checks)
                if not flaw and len(self.render(problem)) > self.room_tokens:
                    flaw = "unfinished"
                keys.add(problem.key)
                problems[-1].append(None if flaw else problem)
                flaws[-1].append(flaw)
        return problems, flaws

    def _rewarded(self, solved: Sequence[Group]) -> list[list[Reward]]:
        judge = WAYS[self.how.method].judge(self)
        flat = iter(judge([(attempt.text, group.task) for group in solved for attempt in group.attempts]))
        return [[next(flat) for _ in group.attempts] for group in solved]

    def _worth(self, row: Sequence[Reward]) -> float:
        """Return the reward of writing a problem, from the rewards of the attempts at it."""
        return WAYS[self.how.method].worth(self.how, row)


class Way(NamedTuple):
    """A method of making problems."""

    sources: Callable[[Writer, RolloutBatch], list[Source]]
    """Returns the sources of a step's problems."""
    judge: Callable[[Writer], "Verify"]
    """Scores attempts at them."""
    worth: Callable[[SyntheticTasksSettings, Sequence[Reward]], float]
    """Returns the reward of writing a problem, from the rewards of the attempts at it."""


def _is_in_window(how: SyntheticTasksSettings, row: Sequence[Reward]) -> float:
    known = [reward for reward in row if reward.score is not None]
    return float(how.window.admits(sum(reward.is_right for reward in known), len(known)))


def _learnability(how: SyntheticTasksSettings, row: Sequence[Reward]) -> float:
    p = sum(reward.is_right for reward in row) / len(row)  # 0 if too few agree
    return 4 * p * (1 - p)


WAYS = {
    "svs": Way(Writer.variations, lambda making: making.judge, _is_in_window),
    "proposer": Way(
        Writer.proposals, lambda making: MajorityVoteReward(MajorityVoteSettings(min_vote_share=making.how.min_share)).judge, _learnability
    ),
}
"""By name of `synthetic_tasks.method`."""


def _right(group: Group, row: Sequence[Reward]) -> list[Attempt]:
    """Return the right attempts of a group that give an answer."""
    pairs = zip(group.attempts, row, strict=True)
    return [attempt for attempt, reward in pairs if reward.is_right and attempt.text.strip() and vote(attempt.text, group.task)]


def _counts(flaws: Sequence[str], scores: Sequence[Sequence[float]], rewards: Sequence[Sequence[Reward]]) -> dict[str, float]:
    """Return the step's metrics of the problems."""
    of = Counter(flaws)
    writing, known = [score for row in scores for score in row], [v.score for row in rewards for v in row if v.score is not None]
    counts: dict[str, float] = {"written": len(flaws), "valid": of[""], "rewarded": sum(score > 0 for score in writing)}
    counts |= {flaw: of[flaw] for flaw in FLAWS}
    counts |= ({"writing_reward": fmean(writing)} if writing else {}) | ({"reward": fmean(known)} if known else {})
    return {f"synthetic_tasks/{name}": value for name, value in counts.items()}


_PLAIN = "adds tasks to plain attempts"


class SyntheticTasks(Callback):
    """Adds the groups of written tasks after the step's own."""

    name, Settings = "synthetic_tasks", SyntheticTasksSettings
    panels = (
        Panel(
            "Synthetic tasks",
            "tasks of a step",
            {
                "synthetic_tasks/written": "written",
                "synthetic_tasks/valid": "without a flaw",
                "synthetic_tasks/rewarded": "neither too hard nor too easy",
            },
        ),
    )
    reads = (Read(("source_window", "window"), "method", ("svs",)), Read(("min_share",), "method", ("proposer",)))
    excludes = (
        Excludes("rollout.search.method", "set it to samples", _PLAIN, allowed=("samples",)),
        Excludes("tasks.actions.gate", "set it to false", _PLAIN),
        Excludes("callbacks.implicit_reward", "leave implicit_reward out", _PLAIN),
        Excludes("reward", "set it to majority_vote", _PLAIN, values=("self_training",)),
    )

    def check(self, settings: Mapping[str, Any]) -> None:
        method, reward = self.settings.method, settings["reward"]
        if method == "proposer" and settings["learn.method"] == "imitation":
            raise UserError(
                "synthetic_tasks.method proposer rewards writing by degrees, of which learn.method imitation takes the highest alone: set "
                "learn.method to policy_gradient or preference, or synthetic_tasks.method to svs"
            )
        parts = settings.get("reward_weights") or {} if reward == "combined" else {reward}
        if method == "svs" and "verifier" not in parts:
            raise UserError(
                f"synthetic_tasks.method svs writes from right attempts, and reward {reward} does not know which are: set reward to "
                "verifier, or synthetic_tasks.method to proposer, which needs no answers"
            )

    def prepare(self, run: "PracticeRun") -> None:
        choice = next((task for task in run.data.train if task.verifier == "choice"), None)
        if choice:
            raise UserError(
                f"synthetic_tasks writes problems, but no choices to them, and the answer of {choice.origin or 'a task'} is a letter among "
                "its own: leave synthetic_tasks out, or give tasks without choices"
            )

    def start(self, run: "PracticeRun") -> None:
        from etude.device.machine import max_prompt_tokens
        from etude.rollouts.prompts import render_prompt, without_control

        def render(task: Task) -> tuple[int, ...]:  # a model's text may spell control tokens
            return render_prompt(run.tokenizer, asking(task, without_control(run.tokenizer, task.question)))

        rollout, measured = run.settings.rollout, {task.key for task in run.data.measured}
        room = max_prompt_tokens(run.model, max(rollout.max_new_tokens, self.settings.max_new_tokens))
        self.writer = Writer(self.settings, rollout, run.engine, run.verifiers.judge, render, room, run.seed, measured)

    def after_rollout(self, batch: RolloutBatch) -> None:
        self.writer.add_to(batch)
