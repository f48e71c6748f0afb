"""How well do estimators know what a prefix of an answer is worth? Each against the mean of 64 answers that go on from there.

    python -m studies.step_values [--hours H] [--seeds SEED ...] [--tiny]

Prefixes are inner nodes of trees that the warm-started model of `number_sorting` grew (a vine: answers, and more from behind every step of
6 tokens), four of each of 50 tasks of which some of 8 answers were right and some wrong, since no others have an advantage. The truth is
the mean score of 64 answers drawn from behind each. Estimators:

rollouts_1, _4, _9   the mean score of so many other answers from there (Math-Shepherd's soft label, VinePPO)
tree                 what the tree that the node stands in says (the mean of those of its answers that came through)
root                 what the tree says of its root: one number for all prefixes of a task, what an advantage by outcome has
step_model           a head on the policy's hidden states, trained on the attempts of 30 steps of practice at other tasks
step_model_replayed  the same with a hidden layer and more passes, in which a step's attempts come with those of 8 steps before
step_model_own       the same with a backbone of its own, trained as a whole: two passes over a step's attempts, the head's eight
implicit_reward      Σ r of a second language model, trained on the outcomes of the same attempts (PRIME), one update a step at rate 1e-5
likelihood           the policy's own mean log-prob of the prefix, which is no feedback

`spearman` is the rank correlation with the truth over all prefixes, most of which is how hard tasks are. `ordered_within` is of the pairs
of prefixes of one task whose truths lie at least 0.1 apart the share that an estimator puts in order, ties half: what advantages of steps
need, and where VinePPO (arXiv 2410.01679) found value networks hardly better than chance. Intervals (95 %) by resampling tasks.
`cost_tokens` is what was sampled for one value (a tree values all its nodes at once; learned ones cost their training, shared by all values
ever asked for).

Claim: learned values, trained so, order prefixes of one task worse than nine rollouts from each do.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from etude.console.reporter import Console
from etude.engine.completion import Completion
from etude.evaluation.statistics import rank_correlation
from etude.learn.advantages import has_signal
from etude.learn.implicit_reward import ImplicitReward
from etude.learn.learner import OptimizerSettings
from etude.learn.step_model import Prefixes, StepModel, StepModelSettings
from etude.learn.step_values import step_targets_of
from etude.randomness import seed_for
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.order import batch_at
from etude.rollouts.prefix_values import split_into_steps
from etude.rollouts.samples import sample_groups
from etude.rollouts.search.settings import Search
from etude.rollouts.steps import Steps
from etude.rollouts.tree import Node, Tree
from etude.rollouts.tree_search import searched
from etude.settings.configuration import to_plain_values
from etude.tasks.task import Task
from etude.training.parse import practice_defaults
from etude.training.run_folder import RunFolder, environment
from etude.training.settings import PracticeSettings
from experiments.arms import settings_of
from experiments.cells import Cell, Options, compute, hardware_of
from experiments.figures import save
from experiments.measures import Verdict, undecided
from experiments.prepared_run import PreparedRun, prepared_run
from experiments.study import Found, Study
from experiments.tables import Column, Row, interval, name_of, seeds_of, table, value

CLAIM = "learned values of steps, trained so, order prefixes of one task worse than nine rollouts from each do"
SEEDS = (40,)
LEARNED = ("step_model", "step_model_replayed", "step_model_own", "implicit_reward")
ESTIMATORS = ("rollouts_1", "rollouts_4", "rollouts_9", "rollouts_4_hard", "rollouts_9_hard", "tree", "root", *LEARNED, "likelihood")
REPLAYED: dict[str, Any] = {"hidden": 64, "replay_steps": 8, "epochs": 32}
"""As a step model foretold best what attempts of later steps would score, of those tried on a run of practice of another seed."""
HARD = "_hard"
"""Of rollouts: whether any was right (Math-Shepherd's hard estimation), instead of their mean."""
TRUTH = 64
Item = tuple[Task, tuple[int, ...]]
"""A task and its prompt."""

APART = 0.1
"""How much truths of a pair have to differ for it to have an order."""


class Agreement:
    """The one cell of a seed."""

    def __init__(self, recipe: str, overrides: dict[str, Any], prefixes: int, training_steps: int, *, each: int, step_tokens: int) -> None:
        """`each`: prefixes of a task."""
        self.recipe, self.overrides, self.prefixes, self.training_steps = recipe, overrides, prefixes, training_steps
        self.each, self.steps = each, Steps("tokens", step_tokens)

    def _settings(self, seed: int) -> PracticeSettings:
        return settings_of(self.recipe, {**self.overrides, "seed": seed, "n": 2000})

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return to_plain_values(self._settings(seed)) | {"with_signal": self.prefixes, "training_steps": self.training_steps}

    def defaults(self) -> dict[str, Any]:
        return practice_defaults()

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Compute values by every estimator, and what they cost."""
        settings = self._settings(seed)
        path = chosen.out / "runs" / f"{arm}-{seed}"
        folder = RunFolder.start(path, to_plain_values(settings), resume=path.exists(), defaults={})
        with prepared_run(settings, self.recipe, folder, chosen.data, Console()) as run:
            run.warm_start()
            nodes = self._nodes(run)
            values, cost = self._by_answers(run, nodes)
            values |= {"tree": [tree.expected()[node] for tree, node in nodes], "root": [tree.expected()[tree.root] for tree, _ in nodes]}
            values["likelihood"] = [fmean(node.own_logprobs) for _, node in nodes]
            in_trees = fmean(tree.sampled_tokens for tree, _ in nodes)
            cost |= {"tree": in_trees, "root": in_trees, "likelihood": 0.0}
            learned, trained_tokens = self._learned(run, nodes)
            facts = folder.read_json("environment.json")
            folder.release()
        return {
            "commit": environment()["commit"],
            "hardware": hardware_of(facts, facts["precision"]),
            "task": [tree.task.key for tree, _ in nodes],
            "values": values | learned,
            "cost_tokens": cost | dict.fromkeys(learned, trained_tokens),
        }

    def _nodes(self, run: PreparedRun) -> list[tuple[Tree, Node]]:
        """Draw some inner nodes of each of some trees, by key; tasks without signal, and trees that lack so many, are passed over."""
        search = Search("vine", chains=4, width=2, steps=self.steps)
        rollout, seed, found = replace(run.settings.rollout, search=search), run.settings.seed, []
        items = batch_at(2, run.items, 1000, seed, "step values")
        for start in range(0, len(items), 25):
            chosen = self._with_signal(run, items[start : start + 25])
            trees, _ = searched(run.engine, chosen, rollout, run.judge, (seed, "step values", start))
            for tree in trees:
                inner = [node for node in tree.nodes() if node.parent and not node.finish]
                if len(inner) >= self.each and tree.expected()[tree.root] is not None:
                    inner.sort(key=lambda node: seed_for(seed, "node", tree.task.key, node.number))
                    found += [(tree, node) for node in inner[: self.each]]
            if len(found) >= self.prefixes:
                return found[: self.prefixes]
        raise SystemExit(f"only {len(found)} prefixes of {self.prefixes} were found")

    def _with_signal(self, run: PreparedRun, items: Sequence[Item]) -> list[Item]:
        """Return the tasks of which some of 8 answers are right and some wrong."""
        rollout = run.settings.rollout
        how: dict[str, Any] = {"num_samples": 8, "max_new_tokens": rollout.max_new_tokens, "sampling": rollout.sampling}
        groups = sample_groups(run.engine, *map(list, zip(*items, strict=True)), **how, names=(run.settings.seed, "signal"))
        texts = [[(run.engine.text_of(attempt.own_tokens), group.task) for attempt in group.attempts] for group in groups]
        return [item for item, own in zip(items, texts, strict=True) if has_signal([reward.score for reward in run.judge(own)])]

    def _by_answers(self, run: PreparedRun, nodes: Sequence[tuple[Tree, Node]]) -> tuple[dict[str, list[Any]], dict[str, float]]:
        """Return the truth, and rollouts of other random numbers."""
        scores: list[list[Any]] = []
        tokens = []
        for place, (tree, node) in enumerate(nodes):
            own = node.own_tokens
            keys = [[seed_for(run.settings.seed, "rollout", place, number) for number in range(TRUTH + 9)]]
            left, sampling = run.settings.rollout.max_new_tokens - len(own), run.settings.rollout.sampling
            (drawn,) = run.engine.generate([(*tree.prompt, *own)], num_samples=TRUTH + 9, max_new_tokens=left, sampling=sampling, keys=keys)
            rewards = run.judge([(run.engine.text_of((*own, *each.tokens)), tree.task) for each in drawn])
            if any(reward.score is None for reward in rewards):
                raise SystemExit(f"a reward is missing: {next(reward.message for reward in rewards if reward.score is None)}")
            scores.append([reward.score for reward in rewards])
            tokens.append(fmean(len(each.tokens) for each in drawn))
        values = {"truth": [fmean(own[:TRUTH]) for own in scores]}
        values |= {f"rollouts_{number}": [fmean(own[TRUTH : TRUTH + number]) for own in scores] for number in (1, 4, 9)}
        return values, {f"rollouts_{number}": number * fmean(tokens) for number in (1, 4, 9)}

    def _learned(self, run: PreparedRun, nodes: Sequence[tuple[Tree, Node]]) -> tuple[dict[str, list[Any]], float]:
        """Return the values of learned estimators, and the tokens of the attempts that they learned from."""
        dtype, batch_tokens = run.place.dtype, run.settings.machine.max_tokens_per_microbatch
        options: dict[str, Any] = {"dtype": dtype, "batch_tokens": batch_tokens}
        kinds: dict[str, dict[str, Any]] = {
            "step_model": {},
            "step_model_replayed": REPLAYED,
            "step_model_own": {"backbone": "own", "epochs": 2},
        }
        settings = {name: StepModelSettings(**kind) for name, kind in kinds.items()}
        heads = {name: StepModel(run.model, each, seed=run.settings.seed, **options) for name, each in settings.items()}
        implicit = ImplicitReward(run.model, 0.05, OptimizerSettings(learning_rate=1e-5), **options)
        asked, tokens = {tree.task.key for tree, _ in nodes}, 0
        for step in range(1, self.training_steps + 1):
            judged = run.rollout(step)
            kept = [place for place, group in enumerate(judged.groups) if group.task.key not in asked]
            groups, rewards = [judged.groups[place] for place in kept], [judged.rewards[place] for place in kept]
            tokens += sum(attempt.num_own_tokens for group in groups for attempt in group.attempts)
            both = [split_into_steps(group, row, self.steps, run.engine.text_of) for group, row in zip(groups, rewards, strict=True)]
            step_targets = step_targets_of([group for group, _ in both], [row for _, row in both], "soft")
            for head in heads.values():
                head.update(step_targets)
            implicit.update(groups, rewards)
            print(f"learned from step {step} of {self.training_steps}", flush=True)
        places = [Prefixes(tree.prompt, node.own_tokens, (len(node.own_tokens),)) for tree, node in nodes]
        values: dict[str, list[Any]] = {name: [value for (value,) in head.values(places)] for name, head in heads.items()}
        prefixes = [Group(tree.task, (_as_attempt(tree, node),)) for tree, node in nodes]
        values["implicit_reward"] = [sum(own) for ((own,),) in zip(implicit.rewards(prefixes), strict=True)]
        return values, float(tokens)


def _as_attempt(tree: Tree, node: Node) -> Attempt:
    return Attempt.of(tree.prompt, Completion(node.own_tokens, node.own_logprobs, "", "length", 0, 0))


def reduce(cells: Sequence[Cell], set_name: str) -> list[dict[str, Any]]:
    """Reduce cells to a row for each estimator, over all prefixes of all seeds."""
    rows = []
    for name in ESTIMATORS:
        tasks: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for cell in cells:
            for key, own, truth in zip(cell["task"], cell["values"][name.removesuffix(HARD)], cell["values"]["truth"], strict=True):
                value = float(own > 0) if name.endswith(HARD) else own
                tasks.setdefault((cell["seed"], key), []).append((value, truth))
        groups = list(tasks.values())
        row: dict[str, Any] = {"id": name, "set": set_name, "n": sum(map(len, groups)), "tasks": len(groups), "seeds": len(cells)}
        row["pairs"] = sum(map(len, map(_pairs_apart, groups)))
        for measure, of in (("spearman", _spearman), ("ordered_within", _ordered_within)):
            row[measure] = of(groups)
            row[f"{measure}_low"], row[f"{measure}_high"] = _interval(groups, of)
        rows.append(row | {"cost_tokens": round(fmean(cell["cost_tokens"][name.removesuffix(HARD)] for cell in cells), 1)})
    return rows


Groups = Sequence[Sequence[tuple[float, float]]]
"""(value, truth) of the prefixes of each task."""


def _ordered_within(groups: Groups) -> float:
    """Return the share of the pairs of one task that are in order; one half where no pair has an order."""
    pairs = [pair for group in groups for pair in _pairs_apart(group)]
    found = [0.5 if one[0] == other[0] else float((one[0] > other[0]) == (one[1] > other[1])) for one, other in pairs]
    return fmean(found) if found else 0.5


def _pairs_apart(group: Sequence[tuple[float, float]]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the pairs whose truths have an order."""
    return [pair for pair in combinations(group, 2) if abs(pair[0][1] - pair[1][1]) >= APART]


def _spearman(groups: Groups) -> float:
    own, truth = zip(*(pair for group in groups for pair in group), strict=True)
    return rank_correlation(own, truth)


def _interval(groups: Groups, of: Callable[[Groups], float]) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    found = [of([groups[place] for place in generator.integers(len(groups), size=len(groups))]) for _ in range(1000)]
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def judge_claim(rows: Sequence[Row]) -> Verdict:
    """Judge the claim by the rows alone."""
    found, name = {row["id"]: row for row in rows}, "ordered_within"
    nine, best = found["rollouts_9"], max((found[each] for each in LEARNED), key=lambda row: row[name])
    said = [f"{row['id']} {row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" for row in (nine, best)]
    because = ", the best learned one, ".join(said)
    if best[f"{name}_high"] < nine[f"{name}_low"]:
        return "holds", because
    return ("does not hold" if best[f"{name}_low"] > nine[f"{name}_high"] else "undecided"), because


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw both measures with their intervals, by estimator."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    measures = {"ordered_within": "pairs of one task in order", "spearman": "rank correlation, all"}
    for axes, (measure, title) in zip(figure.subplots(1, 2, sharey=True), measures.items(), strict=True):
        for place, row in enumerate(rows):
            low, high = row[measure] - row[f"{measure}_low"], row[f"{measure}_high"] - row[measure]
            axes.errorbar(row[measure], place, xerr=[[low], [high]], fmt="o", color="#1f2a44", capsize=3, markersize=5)
        axes.set_yticks(range(len(rows)), [f"{row['id'].replace('_', ' ')}\n{row['cost_tokens']:,.0f} tokens" for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0.5 if measure == "ordered_within" else 0, color="#9aa3b5", linewidth=1)
        axes.set_title(title, loc="left", fontsize=9)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.supxlabel(f"against the mean of {TRUTH} rollouts: {rows[0]['n']} prefixes of {rows[0]['tasks']} tasks", fontsize=8)
    save(figure, path)


TABLE = (
    Column("estimator", name_of),
    Column("pairs of one task in order", interval("ordered_within", "{:.2f}".format)),
    Column("rank correlation", interval("spearman", "{:.2f}".format)),
    Column("tokens", value("cost_tokens", "{:,.0f}".format)),
)


def show(rows: Sequence[Row]) -> str:
    """Write one line an estimator."""
    return table(rows, TABLE, f"{rows[0]['n']} prefixes of {rows[0]['tasks']} tasks, {seeds_of(rows)}; intervals (95 %) over tasks.")


def find(chosen: Options) -> Found | None:
    small = {"warm_start.steps": 60, "rollout.tasks_per_step": 8}
    recipe = "tiny" if chosen.is_tiny else "number_sorting"
    agreement = (
        Agreement(recipe, small, 8, 2, each=1, step_tokens=1) if chosen.is_tiny else Agreement(recipe, {}, 200, 30, each=4, step_tokens=6)
    )
    cells = compute([("agreement", seed) for seed in chosen.seeds], agreement, chosen)
    rows = reduce(cells, recipe) if cells else []
    return cells, rows, judge_claim(rows) if rows else undecided()


STUDY = Study(
    __file__,
    CLAIM,
    ("agreement",),
    SEEDS,
    find,
    show,
    draw,
    rule="the interval over tasks of pairs in order is below that of nine rollouts for the best learned estimator; above it the claim "
    "does not hold",
    about="this model",
    remarks=[
        "The truth is a mean of rollouts, so that rollouts estimate it by construction. Prefixes are of tasks with signal alone, and "
        "the replayed step model was added after the first rows."
    ],
)

if __name__ == "__main__":
    STUDY.main()
