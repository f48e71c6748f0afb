"""How practice comes to a step's judged attempts: its tasks, samples of them, feedback; kept in the ledger before it learns."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.evaluation.measure import Verify
from etude.kv_cache.lazy import LazyView
from etude.kv_cache.view import KeptView
from etude.recipes.believing import Believing
from etude.recipes.reward_checks import check_rewards
from etude.recipes.searching import group_of, searched, tree_row
from etude.recipes.self_made import SelfMaking
from etude.recipes.self_training import SelfTeaching
from etude.recipes.settings import PracticeSettings
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import HINTED, Group
from etude.rollouts.beginnings import parted
from etude.rollouts.curriculum import Curriculum
from etude.rollouts.hints import hinted, without_hint
from etude.rollouts.order import batch_at
from etude.rollouts.refinement import refine
from etude.rollouts.reuse import Drafts, visits
from etude.rollouts.samples import sample_groups
from etude.rollouts.search.growing import Value
from etude.rollouts.settings import Exploration
from etude.rollouts.steps import Steps
from etude.rollouts.stopping import is_decided, portions
from etude.rollouts.variants import asked, sample_variously
from etude.tasks.task import Task
from etude.training.ledger import Judged, Ledger
from etude.training.run_folder import RunFolder

Begin = Callable[[Sequence[tuple[str, Task]]], "Future[list[Verdict]]"]
"""Has texts judged, without waiting."""


class Meanwhile:
    """Judges each group as soon as it is sampled, while others still are: the verdicts of `judge_groups`, sooner."""

    def __init__(self, begin: Begin) -> None:
        self.begin = begin
        self.begun: dict[int, Future[list[Verdict]]] = {}

    def __call__(self, place: int, group: Group) -> None:
        self.begun[place] = self.begin([(attempt.text, group.task) for attempt in group.attempts])

    def verdicts(self) -> list[list[Verdict]]:
        """Of all groups in order, waited for; raises what judging raised."""
        return [self.begun[place].result() for place in sorted(self.begun)]


class Timed:
    """A judge that knows how long it was waited for."""

    def __init__(self, judge: Verify) -> None:
        self.judge, self.seconds = judge, 0.0

    def __call__(self, pairs: Sequence[tuple[str, Task]]) -> list[Verdict]:
        began = time.perf_counter()
        verdicts = self.judge(pairs)
        self.seconds += time.perf_counter() - began
        return verdicts


class Explored:
    """A step's attempts and verdicts, by the places of its tasks, as portions of them come in."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.groups = [Group(task, ()) for task in tasks]
        self.verdicts: list[list[Verdict]] = [[] for _ in tasks]
        self.seconds: dict[str, float] = defaultdict(float)

    def add(
        self, places: Sequence[int], groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], seconds: Mapping[str, float]
    ) -> None:
        """More attempts at the tasks of these places."""
        for place, group, row in zip(places, groups, verdicts, strict=True):
            self.groups[place] = Group(group.task, (*self.groups[place].attempts, *group.attempts))
            self.verdicts[place] += row
        for name, value in seconds.items():
            self.seconds[name] += value

    def part(self, steps: Steps, decode: Callable[[Sequence[int]], str]) -> None:
        """Cut the attempts into steps, with their Monte-Carlo values."""
        for place, (group, row) in enumerate(zip(self.groups, self.verdicts, strict=True)):
            self.groups[place], self.verdicts[place] = parted(group, row, steps, decode)


def judge_groups(groups: Sequence[Group], judge: Verify) -> list[list[Verdict]]:
    """One verdict for every attempt, by group."""
    flat = iter(judge([(attempt.text, group.task) for group in groups for attempt in group.attempts]))
    return [[next(flat) for _ in group.attempts] for group in groups]


def curriculum_for(settings: PracticeSettings, items: Sequence[tuple[Task, tuple[int, ...]]]) -> Curriculum | None:
    """Of these tasks; None where they are taken in turn."""
    how = settings.explore.curriculum
    return None if how.method == "none" else Curriculum([task for task, _ in items], how, settings.seed)


@dataclass
class Exploring:
    """The exploring of one run in progress."""

    settings: PracticeSettings
    items: Sequence[tuple[Task, tuple[int, ...]]]
    """All tasks, with their prompts as token ids."""
    engine: TransformersEngine
    counts: Callable[[], Mapping[str, int]]
    """What feedback has counted so far."""
    folder: RunFolder
    render: Callable[[Task], tuple[int, ...]]
    """A task's prompt as token ids."""
    room_tokens: int
    """How long a prefix may be for an answer of explore.max_new_tokens to follow."""
    by_step_model: Value | None = None
    """What the step model expects of answers in searches, where there is one."""
    believing: Believing | None = None
    """What says from which share of the votes on a majority is believed, where labelled tasks do."""
    curriculum: Curriculum | None = None
    """What says which tasks come next, where they are not taken in turn."""
    self_making: SelfMaking | None = None
    """What has the policy write problems, where it is to."""
    self_teaching: SelfTeaching | None = None
    """What makes an answer of a task's attempts to learn from, where one is made."""
    _drafts: Drafts | None = None

    def __post_init__(self) -> None:
        """Raise UserError where a variant of a prompt is too long."""
        for task, _ in self.items if self.settings.explore.variants else ():
            if (longest := max(map(len, self._variants_of(task)))) > self.room_tokens:
                raise UserError(
                    f"{task.origin or 'a task'} has a prompt of {longest} tokens by explore.variants; the model has room for "
                    f"{self.room_tokens}: shorten the variants"
                )

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder.path / "ledger")

    def explore_at(self, step: int) -> Exploration:
        """How practice step `step`, counted from 1, explores: at its own temperature."""
        explore = self.settings.explore
        return replace(explore, sampling=explore.sampling_at(step, self.settings.steps))

    def tasks_of(self, step: int) -> list[tuple[Task, tuple[int, ...]]]:
        """The tasks of practice step `step`, counted from 1, with their prompts as token ids; with a curriculum, of the next one."""
        if self.curriculum:
            return [self.items[place] for place in self.curriculum.draw(step, self.settings.explore.tasks_per_step)]
        return batch_at(step, self.items, self.settings.explore.tasks_per_step, self.settings.seed, "practice")

    def attempts_of(self, step: int, judge: Verify, begin: Begin | None = None) -> Judged:
        """The judged attempts of step `step`, counted from 1: from the ledger where they were made before.

        Raises UserError for rewards that are not to be learned from; then the step is kept nowhere, and is made anew on resume. With
        `begin`, groups are judged by it while others are sampled; `feedback_seconds` are those that were waited for all the same.
        """
        items = self.tasks_of(step)
        kept = self.ledger.read(step, [task for task, _ in items])
        if kept:
            return kept
        counts, view = self.counts(), self.engine.view
        peak = view.peak if isinstance(view, (KeptView, LazyView)) else None
        if peak:
            peak.take()
        asked = self.believing.ask(step) if self.believing else None
        if self.self_teaching:
            judged = self.self_teaching.judged(step, items, self.explore_at(step))
        elif self.settings.explore.is_search:
            judged = self._searched(step, judge)
        else:
            judged = self._sampled_and_judged(step, items, judge, begin)
        if self.self_making:
            judged = self.self_making.beside(step, judged)
        if asked:
            judged = asked.beside(judged)
        held = {"context_mib": peak.take() / 2**20} if peak else {}
        check_rewards(self.settings, step, judged.groups[judged.given], judged.verdicts[judged.given])
        judged = replace(judged, counts={**judged.counts, **self._counted_since(counts), **held})
        self.ledger.write(step, judged)
        return judged

    def _sampled_and_judged(self, step: int, items: Sequence[tuple[Task, tuple[int, ...]]], judge: Verify, begin: Begin | None) -> Judged:
        """As `attempts_of`, from independent attempts, hinted and revised ones among them."""
        explore = self.explore_at(step)
        found, going = Explored([task for task, _ in items]), list(range(len(items)))
        for attempts in portions(explore.num_samples, explore.stop_when_decided):
            clock, meanwhile = [time.perf_counter()], Meanwhile(begin) if begin else None
            groups = self._sampled(step, {place: items[place] for place in going}, attempts, meanwhile)
            clock.append(time.perf_counter())
            verdicts = meanwhile.verdicts() if meanwhile else judge_groups(groups, judge)
            clock.append(time.perf_counter())
            found.add(going, groups, verdicts, {"explore_seconds": clock[1] - clock[0], "feedback_seconds": clock[2] - clock[1]})
            going = [place for place in going if not is_decided(found.verdicts[place], explore.stop_when_decided)]
            if not going:
                break
        if self.settings.step_model.on:
            found.part(explore.search.steps, self.engine.text_of)
        if explore.turns > 1:
            self._revise(step, found, judge)
        more = self._rationalised(step, items, found, judge) if explore.rationalise else {}
        return Judged(found.groups, found.verdicts, more, found.seconds)

    def _rationalised(self, step: int, items: Sequence[tuple[Task, tuple[int, ...]]], found: Explored, judge: Verify) -> dict[str, int]:
        """As many attempts again, with the answer shown, at the tasks that nobody got right, if anything could be judged; returns how many,
        and how many are right.
        """
        explore, clock = self.explore_at(step), [time.perf_counter()]
        known = {place: [verdict for verdict in row if verdict.score is not None] for place, row in enumerate(found.verdicts)}
        failed = [place for place, row in known.items() if row and not any(verdict.is_right for verdict in row)]
        without = [place for place in failed if items[place][0].answer is not None]
        shown = {place: hinted(items[place][0], explore.hint) for place in without}
        prompts = {place: prompt for place, task in shown.items() if len(prompt := self.render(task)) <= self.room_tokens}
        places = list(prompts)
        groups = sample_groups(
            self.engine,
            [items[place][0] for place in places],
            list(prompts.values()),
            num_samples=explore.num_samples,
            max_new_tokens=explore.max_new_tokens,
            sampling=explore.sampling,
            names=(self.settings.seed, step, HINTED),
            places=places,
        )
        clock.append(time.perf_counter())
        verdicts = judge_groups(groups, judge)
        clock.append(time.perf_counter())
        own = [
            Group(group.task, tuple(without_hint(attempt, items[place][1]) for attempt in group.attempts))
            for place, group in zip(places, groups, strict=True)
        ]
        found.add(places, own, verdicts, {"explore_seconds": clock[1] - clock[0], "feedback_seconds": clock[2] - clock[1]})
        right = sum(verdict.is_right for row in verdicts for verdict in row)
        return {"hinted": sum(map(len, verdicts)), "hinted_right": right}

    def _searched(self, step: int, judge: Verify) -> Judged:
        """As `attempts_of`, from trees; `feedback_seconds` are those of judging within the search."""
        timed, clock = Timed(judge), time.perf_counter()
        names = self.settings.seed, step
        trees, outcomes = searched(self.engine, self.tasks_of(step), self.explore_at(step), timed, names, self.by_step_model)
        self.folder.write_trees(step, (tree_row(tree) for tree in trees))
        groups, verdicts = zip(*(group_of(tree, outcomes, hard=self.settings.learn.step_values == "hard") for tree in trees), strict=True)
        seconds = {"explore_seconds": time.perf_counter() - clock - timed.seconds, "feedback_seconds": timed.seconds}
        sampled = {"sampled_tokens": sum(tree.sampled_tokens for tree in trees)}
        return Judged(list(groups), list(verdicts), sampled, seconds)

    def _counted_since(self, before: Mapping[str, int]) -> dict[str, int]:
        return {name: number - before[name] for name, number in self.counts().items()}

    def _revise(self, step: int, found: Explored, judge: Verify) -> None:
        """Give first attempts, judged, their further turns."""
        explore, timed, clock = self.explore_at(step), Timed(judge), time.perf_counter()
        found.groups, found.verdicts = refine(
            self.engine,
            found.groups,
            found.verdicts,
            timed,
            explore.refine,
            max_new_tokens=explore.max_new_tokens,
            room_tokens=self.room_tokens,
            sampling=explore.sampling,
            names=(self.settings.seed, step),
            steps=explore.search.steps,
        )
        found.seconds["explore_seconds"] += time.perf_counter() - clock - timed.seconds
        found.seconds["feedback_seconds"] += timed.seconds

    def _sampled(
        self, step: int, items: Mapping[int, tuple[Task, tuple[int, ...]]], attempts: range, done: Meanwhile | None
    ) -> list[Group]:
        """Attempts of these numbers at some tasks of a step, by their places in it."""
        explore = self.explore_at(step)
        places: list[int] = list(items)
        if explore.variants:
            return sample_variously(
                self.engine,
                [task for task, _ in items.values()],
                [self._variants_of(task) for task, _ in items.values()],
                attempts=attempts,
                max_new_tokens=explore.max_new_tokens,
                sampling=explore.sampling,
                names=(self.settings.seed, step),
                places=places,
                done=done,
            )
        if explore.reuse:
            of_all = visits(task.key for task, _ in self.tasks_of(step))
            places = [of_all[place] for place in items]
        return sample_groups(
            self.engine,
            [task for task, _ in items.values()],
            [prompt for _, prompt in items.values()],
            num_samples=len(attempts),
            max_new_tokens=explore.max_new_tokens,
            sampling=explore.sampling,
            names=(self.settings.seed, "visits" if explore.reuse else step),
            places=places,
            first=attempts.start,
            drafts=self.drafts_before(step),
            done=done,
        )

    def _variants_of(self, task: Task) -> list[tuple[int, ...]]:
        """The task's prompts by `explore.variants`."""
        return [self.render(asked(task, variant)) for variant in self.settings.explore.variants]

    def drafts_before(self, step: int) -> Drafts | None:
        """Of the attempts of the steps before `step`; None without reuse. A resumed run reads them from its folder."""
        if self.settings.explore.reuse and self._drafts is None:
            self._drafts = Drafts()
            for done in range(1, step):
                self._drafts.keep_rows(self.folder.read_attempts(done))
        return self._drafts

    def keep(self, step: int, judged: Judged) -> dict[str, float]:
        """What later steps take from this one, counted from 1, and metrics of it: the share of its tokens that it took from earlier ones
        itself, or how a curriculum stands.
        """
        if self.curriculum:
            groups = judged.groups[judged.given]
            own = [
                [verdict for attempt, verdict in zip(group.attempts, row, strict=True) if attempt.is_sample]
                for group, row in zip(groups, judged.verdicts[judged.given], strict=True)
            ]
            return self.curriculum.observe(groups, own)
        drafts = self.drafts_before(step)
        if drafts is None:
            return {}
        reused = drafts.share(judged.groups)
        drafts.keep(judged.groups)
        return {"reused": reused}
