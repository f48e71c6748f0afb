"""The long-context suite (`etude evaluate MODEL --suite long`): accuracy with the full KV cache and with a cache policy."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from etude.device.machine import Machine
from etude.errors import UserError, at_least, check_known
from etude.evaluation.long.kinds import FROM_FILES, KINDS, Generator
from etude.evaluation.long.multi_policy import Reading
from etude.evaluation.long.tokenized import TokenizedTask, generators_by_kind, make_haystack, make_tasks
from etude.evaluation.report.kv_cache_page import ShownTask, write_kv_cache_page
from etude.evaluation.statistics import mean_interval
from etude.knowledge.documents import Corpus, read_documents
from etude.kv_cache.cache_policy import CachePolicy
from etude.kv_cache.full_cache import FULL
from etude.kv_cache.settings import KVCacheSettings
from etude.models.load import cast_weights, end_tokens, max_positions
from etude.settings.configuration import flatten, to_plain_values
from etude.settings.unused import unread_among, unread_in
from etude.suites.harness import Request, Subject, SuiteDefinition
from etude.tasks.files import find_file


@dataclass(frozen=True)
class LongSuite:
    """Settings of the long-context suite: tasks whose answer is hidden in a long text."""

    kinds: list[str] = field(default_factory=lambda: ["single", "multi_key", "multi_value", "variables", "frequent"])
    """`single`, `multi_key`, `multi_value` (needles), `variables` (variable tracking), `common`, `frequent` (word counts), `instructions`
    (before the text), and from files `facts`, `meetings`, `stories`.
    """
    tokens: list[int] = field(default_factory=lambda: [1024, 2048])
    """Lengths of text and question together."""
    n: int = 20
    """Tasks per kind and length."""
    haystack: list[str] = field(default_factory=list)
    """Files of filler text; empty = noise."""
    facts: str | None = None
    """A file of bAbI."""
    meetings: str | None = None
    """A file of QMSum."""
    stories: str | None = None
    """A file of SQuALITY."""
    question: Literal["unseen", "seen"] = "unseen"
    """`seen` = the question is in the prompt when the policy evicts; `unseen` = it comes after and is kept whole; under retrieval each of
    its tokens reads its own pages."""
    max_new_tokens: int = 32
    """Longest answer in tokens."""
    system: str | None = None
    """System message before every text."""
    kv_cache: KVCacheSettings = field(default_factory=KVCacheSettings)
    """The cache policy, which is compared with the full cache."""
    seed: int = 0
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        at_least("n", self.n, 2)
        at_least("max_new_tokens", self.max_new_tokens, 1)
        for kind in self.kinds:
            check_known("kind", kind, (*KINDS, *FROM_FILES))
            if kind in FROM_FILES and getattr(self, kind) is None:
                raise UserError(f"tasks of {kind} are made from a file: set {kind}, or leave them out of kinds")
        if not self.kinds or not self.tokens:
            raise UserError("there is nothing to ask: set kinds and tokens")


def _load(suite: LongSuite, request: Request) -> tuple[list[str], dict[str, Generator]]:
    """Read the texts of the haystack, and the generators of tasks."""
    if request.page and not suite.kv_cache.is_on:
        raise UserError(
            "a page shows what a policy keeps: choose one (--kv_cache.policy snapkv --kv_cache.keep_ratio 0.25), or leave --page out"
        )
    if request.page and find_spec("matplotlib") is None:
        raise UserError("a page needs matplotlib: pip install 'etude[plot]', or leave --page out")
    if suite.kv_cache.rerotate:
        raise UserError("kv_cache.rerotate is not for this suite, which cuts a text that was read at its own positions: leave it out")
    texts = [each.text for each in read_documents(Corpus(path=suite.haystack), request.data)] if suite.haystack else []
    return texts, generators_by_kind(
        {name: find_file(path, request.data) if (path := getattr(suite, name)) else None for name in FROM_FILES}
    )


def _measure(suite: LongSuite, loaded: tuple[list[str], dict[str, Generator]], subject: Subject, name: str) -> dict[str, Any]:
    (texts, made), tokenizer, reporter, page = loaded, subject.tokenizer, subject.reporter, subject.request.page
    model = cast_weights(subject.model, subject.place.dtype).eval()
    longest, positions = max(suite.tokens) + suite.max_new_tokens, max_positions(model)
    if longest > positions:
        raise UserError(
            f"tokens {max(suite.tokens)} and max_new_tokens {suite.max_new_tokens} are more than the model's {positions} positions"
        )
    haystack, ends = make_haystack(texts, tokenizer), end_tokens(model, tokenizer)
    policy = suite.kv_cache.cache_policy.for_tokenizer(tokenizer).as_generated() if suite.kv_cache.is_on else None
    unread = unread_among(
        suite,
        flatten(to_plain_values(LongSuite())),
        {("kv_cache.every_tokens",): "all that is said is kept", **unread_in("kv_cache", suite.kv_cache, "policy")},
    )
    for sentence in unread:
        reporter.say(f"unused settings: {sentence}")
    rows, items, shown = [], [], []
    for kind in suite.kinds:
        for tokens in suite.tokens:
            named: dict[str, Any] = {"tokens": tokens, "n": suite.n, "seed": suite.seed, "system": suite.system}
            tasks = make_tasks(tokenizer, kind, made[kind], haystack, **named)
            steps = reporter.steps(f"{kind}, {tokens:,} tokens", range(len(tasks)))
            found = [_answered(model, tokenizer, tasks[i], policy, suite, ends, shows=bool(page) and i == 0) for i in steps]
            if page:
                pieces = tokenizer.batch_decode([[token] for token in tasks[0].text])
                shown.append(ShownTask(kind, found[0], pieces, found[0].pop("kept")))
            rows.append(_row(kind, tokens, found))
            reporter.say(line(rows[-1], suite.kv_cache.name if policy else None))
            items += [{"kind": kind, "tokens": tokens, **each} for each in found]
    result = {"view": suite.kv_cache.name, "rows": rows, "items": items}
    if page and policy:
        write_kv_cache_page({"model": name, **result}, shown, page, reads=policy.is_retrieval)
    return result


def _answered(
    model: Any, tokenizer: Any, each: TokenizedTask, policy: CachePolicy | None, suite: LongSuite, ends: Collection[int], *, shows: bool
) -> dict[str, Any]:
    """Answer a task with the full cache and with the policy; with `shows` also return what the policy keeps of its text."""
    reading, is_seen = Reading(model, [policy] if policy else []), suite.question == "seen"
    prompt = [*each.text, *each.question] if is_seen else each.text
    began = time.perf_counter()
    reading.read(prompt)
    read_seconds = time.perf_counter() - began
    found: dict[str, Any] = {"question": each.task.question, "answers": list(each.task.answers), "depth": each.task.depth}
    ways: dict[str, CachePolicy] = {"full": FULL} | ({"view": policy} if policy else {})
    for name, way in ways.items():
        began = time.perf_counter()
        rows = reading.rows([way])
        if policy and policy.reads_own_prompt:  # other policies share the one prefill
            found[f"{name}_read_seconds"] = read_seconds if name == "full" else time.perf_counter() - began
        (held,) = rows.held_tokens
        logits_PV = rows.first(reading) if is_seen else rows.forced(each.question, keep=1)[:, -1]
        began, before = time.perf_counter(), rows.passes
        (tokens,) = rows.greedy(logits_PV, suite.max_new_tokens, ends)
        passes = rows.passes - before
        seconds = (time.perf_counter() - began) / passes if passes else None  # an answer may end before its first token
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        found |= {name: each.task.score(text), f"{name}_text": text, f"{name}_token_seconds": seconds, f"{name}_tokens": held}
    if policy:
        found |= {"held": found["view_tokens"] / found["full_tokens"]} | ({"kept": rows.shares(0, len(each.text))} if shows else {})
        if policy.is_retrieval:
            found |= {name: getattr(rows, name) for name in ("hit_rate", "expected_rate", "moved_bytes")}
    return found


def _row(kind: str, tokens: int, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "tokens": tokens, "n": len(found)}
    for name in ("full", "view") if "view" in found[0] else ("full",):
        values = [each[name] for each in found]
        low, high = mean_interval(values)
        row |= {name: sum(values) / len(values), f"{name}_low": low, f"{name}_high": high}
        for part in (f"{name}_tokens", f"{name}_token_seconds"):
            known = [each[part] for each in found if each[part] is not None]
            row[part] = sum(known) / len(known) if known else None
    if "view_read_seconds" in found[0]:
        row["read_share"] = sum(each["view_read_seconds"] for each in found) / sum(each["full_read_seconds"] for each in found)
    if "view" in found[0]:
        gains = [each["view"] - each["full"] for each in found]
        low, high = mean_interval(gains)
        row |= {
            "gain": sum(gains) / len(gains),
            "gain_low": low,
            "gain_high": high,
            "held": sum(each["held"] for each in found) / len(found),
        }
    return row


def line(row: Mapping[str, Any], view: str | None) -> str:
    """Format a row as a line."""
    full = f"{row['kind']:<12} {row['tokens']:>6,} tokens  full {row['full']:.1%} [{row['full_low']:.1%}, {row['full_high']:.1%}]"
    if "view" not in row:
        return f"{full}  n = {row['n']:,}"
    gain = [100 * row[f"gain{end}"] for end in ("", "_low", "_high")]
    own = f"{view} {row['view']:.1%}, {gain[0]:+.1f} points [{gain[1]:+.1f}, {gain[2]:+.1f}]"
    holds = f"holds {row['held']:.0%}" + (f", read in {row['read_share']:.0%} of the time" if "read_share" in row else "")
    return f"{full}, {own}, {holds}  n = {row['n']:,}"


LONG_CONTEXT = SuiteDefinition("long", "long", LongSuite, _load, _measure, has_page=True)
"""Returns `view`, `rows`, one for each kind and length, and `items`, one for each task."""
