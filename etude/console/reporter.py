"""Reporters of a run's progress: none (`Silent`), results only (`ResultsOnly`), or lines, a progress bar and tables (`Console`)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from etude.console.terminal import visible
from etude.evaluation.report.number_format import short_p_value, short_reward
from etude.evaluation.report.tables import num_samples
from etude.evaluation.rewards import tells_more
from etude.tasks.feedback import shortened

_WIDTH = 200
"""Maximum width of a table, in columns; it uses about 90, also in a pipe or a narrow terminal."""


class Reporter(Protocol):
    """The events that a recipe reports."""

    def say(self, text: str) -> None: ...
    def baselines(self, suites: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> None: ...
    def measuring(self, model: str, suite: str, n: int) -> None: ...
    def measured(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None: ...
    def steps(self, name: str, steps: range, total: int | None = None) -> Iterable[int]: ...
    def step(self, phase: str, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None: ...
    def concluded(self, result: Mapping[str, Any], folder: Path, sentences: Sequence[str] = ()) -> None: ...


class Silent:
    """A reporter that prints nothing."""

    def say(self, text: str) -> None: ...
    def baselines(self, suites: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> None: ...
    def measuring(self, model: str, suite: str, n: int) -> None: ...
    def measured(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None: ...
    def steps(self, name: str, steps: range, total: int | None = None) -> Iterable[int]:
        return steps

    def step(self, phase: str, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None: ...
    def concluded(self, result: Mapping[str, Any], folder: Path, sentences: Sequence[str] = ()) -> None: ...


class Console:
    """Prints events to a terminal; in a pipe the same lines without a moving bar."""

    def __init__(self, console: RichConsole | None = None) -> None:
        self.console = console or RichConsole(highlight=False, soft_wrap=True, markup=False)
        self._progress: Progress | None = None
        self._task: Any = None

    def say(self, text: str) -> None:
        self.console.print(visible(text), markup=False)

    def baselines(self, suites: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> None:
        self.say(
            f"tasks: {facts['train']} for training, {facts['demonstrations']} demonstrations, {facts['evaluation']} for evaluation; "
            f"{facts['overlap_removed']} duplicates of evaluation tasks removed, {facts['near_copies']} near duplicates kept"
        )
        if "space_at_least" in facts:
            self.say(
                f"the family has at least {facts['space_at_least']:,.0f} different items ({facts['space_draws']} sampled, "
                f"{facts['space_distinct']} distinct); this run uses at most {facts['drawn_share']:.2%} of them"
            )
        for suite, found in suites.items():
            listed = ", ".join(f"{rule} {accuracy:.1%}" for rule, accuracy in list(found.items())[:6] if accuracy)
            self.say(f"trivial baselines on {suite}: {listed or ('none is right on any task' if found else 'none applies')}")

    def measuring(self, model: str, suite: str, n: int) -> None:
        self.say(f"measuring {_words(model)} on {suite} ({n} tasks) ...")

    def measured(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.say(
                f"  {_words(model)} on {row['suite']}: {_accuracy(row)} greedy, {_share(row, 'sampled_accuracy')} sampled, "
                f"{_of_samples(row)}, {_share(row, 'parsable')} parsable{_rewards(row)}{_exceptions(row)}{_other_ways(row)}"
            )
            for forced in row.get("thought", ()):
                self.say(_after_thought(forced))

    def steps(self, name: str, steps: range, total: int | None = None) -> Iterator[int]:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as self._progress:
            self._task = self._progress.add_task(name, total=total or len(steps), completed=steps.start)
            for step in steps:
                yield step
                self._progress.advance(self._task)
        self._progress = None

    def step(self, phase: str, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        shown = _live(phase, step, metrics, timings)
        if self._progress is not None and self.console.is_terminal:
            self._progress.update(self._task, description=shown)
        elif step == 1 or step % 10 == 0:
            self.say(shown)

    def concluded(self, result: Mapping[str, Any], folder: Path, sentences: Sequence[str] = ()) -> None:
        self.say(f"{result['recipe']} (seed {result['seed']}), weights: {result['weights']}")
        RichConsole(file=self.console.file, width=_WIDTH, highlight=False, markup=False).print(_table(result["evaluation"]))
        has_rewards = any(map(tells_more, result["evaluation"]))
        for pair in result["paired"]:
            self.say(
                f"{pair['suite']}: {_words(pair['second'])} against {_words(pair['first'])} {100 * pair['difference']:+.1f} points "
                f"[{100 * pair['difference_low']:+.1f}, {100 * pair['difference_high']:+.1f}], paired {short_p_value(pair['p_value'])} "
                f"(n = {pair['n']}){_reward_change(pair) if has_rewards else ''}"
            )
        for row in result.get("retention", ()):
            self.say(f"general knowledge, {_words(row['model'])}: {_retention(row)}")
        for sentence in (_frontier(result), *sentences):
            if sentence:
                self.say(sentence)
        counts = result.get("feedback_counts", {})
        if sentence := _unscored(result):
            self.say(sentence)
        if counts.get("judge_asked"):
            self.say(_judge(counts))
        self.say(f"model: {folder / 'model'}   report: {folder / 'report.html'}")


class ResultsOnly(Silent):
    """Prints only measurements and the end of a run, without progress."""

    def __init__(self, console: RichConsole | None = None) -> None:
        self._console = Console(console)

    def measured(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self._console.measured(model, rows)

    def concluded(self, result: Mapping[str, Any], folder: Path, sentences: Sequence[str] = ()) -> None:
        self._console.concluded(result, folder, sentences)


def _frontier(result: Mapping[str, Any]) -> str:
    """Summarise task accuracy and general knowledge of every model that has both, in the order of the run."""
    suite = next((row["suite"] for row in result["evaluation"]), None)
    skill = {row["model"]: row["accuracy"] for row in result["evaluation"] if row["suite"] == suite}
    known = {row["model"]: row["choice_accuracy"] for row in result.get("retention", ()) if "choice_accuracy" in row}
    models = [model for model in skill if model in known]
    skills, knowledge = (" -> ".join(f"{found[model]:.1%}" for model in models) for found in (skill, known))
    return f"{' -> '.join(map(_words, models))}: accuracy on {suite} {skills}, general knowledge {knowledge}" if models else ""


def _judge(counts: Mapping[str, int]) -> str:
    text = f"judge: {counts['judge_asked']} calls, {counts['judge_failed']} without a reply, {counts['judge_unread']} without a verdict"
    chosen = counts["judge_chose_first"] + counts["judge_chose_second"]
    text += f"; the first of two attempts was preferred in {counts['judge_chose_first'] / chosen:.1%}" if chosen else ""
    again = counts["judge_repeated"]
    return text + (f"; repeated calls contradicted the first in {counts['judge_contradicted'] / again:.1%} of {again}" if again else "")


def _other_ways(row: Mapping[str, Any]) -> str:
    """Describe the answers of a search, a decoding method or an exported model, if there are any."""
    said = ""
    for way in ("search", "decoding", "export"):
        if f"{way}_accuracy" in row:
            said += f"; by {way} {_accuracy(row, f'{way}_accuracy')} at {row[f'{way}_tokens']:,.0f} tokens a task"
            gain = [100 * row[f"{way}_gain{end}"] for end in ("", "_low", "_high")]
            said += f", {gain[0]:+.1f} points [{gain[1]:+.1f}, {gain[2]:+.1f}] on greedy"
            said += f", {row[f'{way}_not_given']:.1%} unanswered" if row[f"{way}_not_given"] else ""
            if f"{way}_words" in row:
                said += f", {row[f'{way}_words']:.1f} words for {row[f'{way}_greedy_words']:.1f}"
            if f"{way}_preferred" in row and row[f"{way}_preferred"] is None:
                said += f", without a verdict of the judge ({row[f'{way}_preferred_unread']} asked)"
            elif f"{way}_preferred" in row:
                low, high = (row[f"{way}_preferred_{end}"] for end in ("low", "high"))
                said += f", preferred by the judge in {row[f'{way}_preferred']:.1%} [{low:.1%}, {high:.1%}] of {row[f'{way}_preferred_n']}"
                said += f", {row[f'{way}_preferred_order']:.1%} decided by the order alone"
                said += f", {row[f'{way}_preferred_unread']} without a verdict" if row[f"{way}_preferred_unread"] else ""
    return said


def _after_thought(row: Mapping[str, Any]) -> str:
    """Format the greedy accuracy after a thought of fixed length."""
    return (
        f"    after a thought of {row['budget_tokens']} tokens: {_accuracy(row)}, {row['own_tokens']:.1f} own tokens, "
        f"{row['extended']:.1%} extended, {row['cut']:.1%} cut off"
    )


def _exceptions(row: Mapping[str, Any]) -> str:
    """List exceptions: truncated answers, answers without a score, repeated questions."""
    cut = f", {row['truncated']:.1%} truncated" if row.get("truncated") else ""
    again = f", {row['repeated']} repeated questions" if row.get("repeated") else ""
    return cut + _without_score(row) + again


def _without_score(row: Mapping[str, Any]) -> str:
    """Count answers without a score, with the most frequent reason."""
    if not row.get("unscored"):
        return ""
    return f", {row['unscored']} unscored" + (f" ({shortened(row['unscored_reason'])})" if row.get("unscored_reason") else "")


def _unscored(result: Mapping[str, Any]) -> str:
    """Summarise the answers without a score of the whole run."""
    found, counts = result.get("unscored") or {}, result.get("feedback_counts", {})
    if not found:
        return ""
    kinds = {"timed_out": "timed out", "crashed": "crashed the verifier"}
    failed = [f"{counts[name]} {words}" for name, words in kinds.items() if counts.get(name)]
    most = f"; most frequent reason: {found['reason']}" if found.get("reason") else ""
    of_all = f" (of {counts['judged']} scored {' and '.join(failed)})" if failed else ""
    return (
        f"feedback: {found['practice']} attempts and {found['evaluation']} evaluation answers have no score{of_all}{most}. They are "
        "left out of updates and mean rewards, and count as wrong in accuracies"
    )


def _rewards(row: Mapping[str, Any]) -> str:
    """Format the mean rewards of an evaluation row, if they differ from its accuracies."""
    if not tells_more(row):
        return ""
    sampled = row.get("sampled_mean_reward")
    return f", mean reward {_reward(row)}" + ("" if sampled is None else f", {short_reward(sampled)} sampled")


def _reward(row: Mapping[str, Any]) -> str:
    if row.get("mean_reward") is None:
        return "-"
    value, low, high = (short_reward(row[f"mean_reward{end}"]) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _reward_change(pair: Mapping[str, Any]) -> str:
    text = ""
    for kind, name in (("", "mean reward"), ("sampled_", "sampled mean reward")):
        if f"{kind}reward_difference" in pair:
            value, low, high = (_signed(pair[f"{kind}reward_difference{end}"]) for end in ("", "_low", "_high"))
            text += f"; {name} {value} [{low}, {high}], paired {short_p_value(pair[f'{kind}reward_p_value'])}"
    return text


def _signed(value: float) -> str:
    return f"{'' if value < 0 else '+'}{short_reward(value)}"


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Build the table of results of every suite, followed by its best trivial baselines, if they are right or rewarded on any task."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    k = next(filter(None, map(num_samples, rows)), None) or "k"
    has_rewards = any(map(tells_more, rows))
    rewards = ["mean reward (95 %)", "sampled reward"] if has_rewards else []
    for name in ("suite", "model", "n", "accuracy (95 %)", *rewards, "sampled", f"maj@{k}", f"pass@{k}", "parsable"):
        table.add_column(name, justify="left" if name in ("suite", "model") else "right", no_wrap=True)
    for row in rows:
        cells = [row["suite"], _words(row["model"]), str(row["n"]), _accuracy(row)]
        cells += [_reward(row), _short(row.get("sampled_mean_reward"))] if has_rewards else []
        shares = [_share(row, name) for name in ("sampled_accuracy", f"majority_at_{k}", f"pass_at_{k}", "parsable")]
        table.add_row(*map(visible, (*cells, *shares)))
    for row in {row["suite"]: row for row in rows}.values():
        rewards_of = row.get("baseline_rewards", {}) if has_rewards else {}
        best = sorted(row["baselines"].items(), key=lambda item: (-item[1], -rewards_of.get(item[0], -inf)))  # a stable sort
        for rule, accuracy in [(rule, accuracy) for rule, accuracy in best if accuracy or rewards_of.get(rule)][:3]:
            its_reward = [_short(rewards_of.get(rule))] if has_rewards else []
            table.add_row(visible(row["suite"]), visible(f"rule: {_words(rule)}"), "", f"{accuracy:.1%}", *its_reward)
    return table


def _live(phase: str, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> str:
    if "score" not in metrics and "imitate_loss" in metrics:
        return f"{_words(phase)} {step}: loss {metrics['imitate_loss']:.3f}"
    if phase == "preference":
        return f"preference {step}: loss {metrics['preference_loss']:.3f}, {metrics['preference_accuracy']:.0%} of the pairs right"
    score = _short(metrics["score"])
    seconds = sum(value for name, value in timings.items() if name.endswith("_seconds"))
    signal = metrics["groups"] - metrics["groups_without_signal"]
    parts = f"{signal}/{metrics['groups']} groups with signal{_without_score(metrics)}"
    return f"practice {step}: mean reward {score}, {parts}, {seconds:.1f} s"


def _short(reward: float | None) -> str:
    return "-" if reward is None else short_reward(reward)


def _retention(row: Mapping[str, Any]) -> str:
    text = f"perplexity {row['perplexity']:.2f}" if "perplexity" in row else ""
    low, high = row.get("choice_accuracy_low", 0.0), row.get("choice_accuracy_high", 0.0)
    choices = f"{row['choice_accuracy']:.1%} [{low:.1%}, {high:.1%}] of {row['choices_n']} questions" if "choices_n" in row else ""
    return ", ".join(filter(None, (text, choices)))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _accuracy(row: Mapping[str, Any], name: str = "accuracy") -> str:
    return f"{row[name]:.1%} [{row[f'{name}_low']:.1%}, {row[f'{name}_high']:.1%}]"


def _share(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.1%}" if row.get(name) is not None else "-"


def _of_samples(row: Mapping[str, Any]) -> str:
    """Format the accuracies of several samples per task: majority and pass@k."""
    k = num_samples(row)
    return f"{_share(row, f'majority_at_{k}')} majority@{k}, {_share(row, f'pass_at_{k}')} pass@{k}" if k else "-"
