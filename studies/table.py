"""The rows of a study as a Markdown table, and the copies of such tables in the README and the pages beside it.

    python -m studies.table        put every study's table where a page has a place for it

A page marks the place with `<!-- table: NAME -->` and `<!-- end -->` on lines of their own.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_DRAWN = {
    "sampled_accuracy": "sampled",
    "majority_at_8": "majority@8",
    "majority_at_32": "majority@32",
    "pass_at_8": "pass@8",
    "pass_at_32": "pass@32",
}
"""What rows hold of sampled answers, and how a table calls it."""
_PLACE = re.compile(r"(?<=<!-- table: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of any study; below them what the numbers are counted on."""
    if "spearman" in rows[0]:
        counted = f"{rows[0]['n']} beginnings of {rows[0]['tasks']} tasks, {_seeds(rows)}; intervals (95 %) over tasks."
        return _lines(["estimator", "pairs of one task in order", "rank correlation", "tokens"], map(_estimator, rows), counted)
    if "recall" in rows[0]:
        counted = (
            f"{rows[0]['n']:,} hidden documents among {rows[0]['documents']:,}, {_seeds(rows)}; intervals (95 %) over documents, of what "
            "the classifier finds more paired."
        )
        return _lines(
            ["way", "found of what is hidden", "each seed", "right of what is taken", "classifier ahead by"], map(_found, rows), counted
        )
    if "mc2" in rows[0]:
        sizes = [f"{row['n']:,} of {row['set']}" for row in rows if row["id"] == rows[0]["id"]]
        counted = f"{', '.join(sizes)}; intervals over questions, 95 %, of gains 98.3 %."
        return _lines(["way", "set", "MC1; of facts pairs in order", "gain on the plain model", "MC2", "MC3"], map(_chosen, rows), counted)
    if "leads_after" in rows[0]:
        return _known_and_said(rows)
    if "share" in rows[0]:
        return _contexts(rows)
    if "worth_kept" in rows[0]:
        return _important(rows)
    if "given_right" in rows[0]:
        return _self_trained(rows)
    if "not_given" in rows[0]:
        return _decodings(rows)
    if any("choices_gain" in row for row in rows):
        return _orders(rows)
    if "kept" in rows[0]:
        counted = (
            f"{rows[0]['n']:,} items of {rows[0]['set']} and {rows[0]['known_n']} questions, {_seeds(rows)}; intervals (95 %) over items."
        )
        head = [
            "arm",
            "greedy",
            "gain",
            "of rl's gain",
            "old knowledge kept",
            "text, nats a token more",
            "KL(start || model), nats an answer",
        ]
        return _lines(head, map(_kept, rows), counted)
    if "budget_tokens" in rows[0]:
        return _thoughts(rows)
    if not any("gain" in row for row in rows) and any("tokens" in row for row in rows):
        counted = f"{rows[0]['n']} items of {rows[0]['set']}, {_seeds(rows)}; intervals (95 %) over items."
        return _lines(["answer", "right", "tokens a task"], map(_answer, rows), counted)
    return _practice(rows)


def _practice(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line an arm and set: greedy accuracy with its interval, gain over the warm start, samples, what the baseline is ahead by, time;
    and tokens sampled, entropy and divergence where they were measured.
    """
    ahead = next((name for row in rows for name in row if name.endswith("_ahead")), "practice_ahead")
    drawn = [name for name in _DRAWN if any(name in row for row in rows)]
    led = f"{ahead.removesuffix('_ahead').replace('_', ' ')} ahead by"
    head = ["arm", "greedy", "gain over the warm start", "each seed", *(_DRAWN[name] for name in drawn), led, "training"]
    if any("sampled_tokens" in row for row in rows):
        head += ["tokens sampled", "entropy, nats a token", "KL, nats an answer"]
    if any("majority_right_last" in row for row in rows):
        head += ["attempts that agree", "majorities that are right", "own problems"]
    if any("course" in row for row in rows):
        head += ["different answers", "different forms"]
    if any("last pass@k" in _differing(row) for row in rows):
        head.append("last pass@k")
    if any("context_share" in row for row in rows):
        head.append("contexts, of full's")
    if len({row["set"] for row in rows}) > 1:
        head.insert(0, "set")
    lines, most = [], max(row["seeds"] for row in rows)
    for row in rows:
        fewer = f" ({_seeds([row])})" if row["seeds"] < most else ""
        values = {"set": row["set"], "arm": row["id"].replace("_", " ") + fewer, "greedy": _interval(row, "accuracy", _percent)}
        if "gain" in row:
            values["gain over the warm start"] = f"{_interval(row, 'gain', _points)}, p {_p(row['gain_p'])}"
            values["each seed"] = ", ".join(map(_points, row["gain_each_seed"]))
        if ahead in row:
            values[led] = _interval(row, ahead, _points)
        if "training_seconds" in row:
            values["training"] = f"{row['training_seconds']:.0f} s"
        values |= {_DRAWN[name]: _percent(row.get(name)) for name in drawn}
        values |= {"tokens sampled": f"{row['sampled_tokens']:,.0f}"} if "sampled_tokens" in row else {}
        values |= {"entropy, nats a token": f"{row['entropy']:.2f}"} if "entropy" in row else {}
        values |= {"KL, nats an answer": f"{row['divergence']:.2f}"} if "divergence" in row else {}
        values |= {"contexts, of full's": f"{row['context_share']:.2f}"} if "context_share" in row else {}
        values |= _agreeing(row) | _differing(row)
        lines.append([values.get(name, "") for name in head])
    return _lines(head, lines, _counted_on(rows))


def _agreeing(row: Mapping[str, Any]) -> dict[str, str]:
    """How agreement and its truth went from the first to the last tenth of the steps, and what became of a run's own problems."""
    names = {"vote_share": "attempts that agree", "majority_right": "majorities that are right"}
    ends = {said: [row[f"{name}_{end}"] for end in ("first", "last")] for name, said in names.items() if f"{name}_last" in row}
    values = {said: " to ".join(map(_percent, both)) for said, both in ends.items()}
    if "made" in row:
        right = f", {_percent(row['made_right_by_rule'])} of {row['made_right_n']} right" if "made_right_n" in row else ""
        read = f", {_percent(row['made_read_sound'])} of {row['made_read_n']} read are sound" if "made_read_n" in row else ""
        values["own problems"] = f"{row['made']}, {_percent(row['made_valid_share'])} without a flaw{right}{read}"
    return values


def _differing(row: Mapping[str, Any]) -> dict[str, str]:
    """Shares of different answers and forms in a group's attempts, over the steps, and the chance that one of most samples is right,
    where no other column has it.
    """
    if "pass_curve" not in row:
        return {}
    course, (most, share) = row.get("course", {}), list(row["pass_curve"].items())[-1]
    names = {"distinct_answers": "different answers", "distinct_forms": "different forms"}
    values = {said: f"{fmean(course[name]):.2f}" for name, said in names.items() if name in course}
    return values if f"pass_at_{most}" in _DRAWN else values | {"last pass@k": f"{_percent(share)} (k = {most})"}


def _thoughts(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a model: right answers as it likes and behind thoughts of each length, and what a doubling of the thought adds."""
    budgets = list(dict.fromkeys(row["budget_tokens"] for row in rows if row["budget_tokens"]))
    found = {(row["id"].rpartition("_")[0], row["budget_tokens"]): row for row in rows}
    head = [
        "model",
        "free",
        "tokens",
        *(f"behind {budget}" for budget in budgets),
        "a doubling adds",
        "more than before",
        "each seed",
        "random reward behind",
    ]
    lines = []
    for row in (row for row in rows if not row["budget_tokens"]):
        arm = row["id"].rpartition("_")[0]
        forced = [_interval(found[arm, budget], "accuracy", _percent) for budget in budgets]
        slope, gain, ahead = (
            _interval(row, name, _points) if name in row else "" for name in ("slope", "slope_gain", "random_reward_behind")
        )
        seeds = ", ".join(map(_points, row.get("slope_gain_each_seed", ())))
        free = [_interval(row, "accuracy", _percent), f"{row['tokens']:.0f}"]
        lines.append([arm.replace("_", " "), *free, *forced, slope, gain, seeds, ahead])
    return _lines(head, lines, f"{rows[0]['n']:,} items of {rows[0]['set']}, {_seeds(rows)}; points and intervals (95 %) over items.")


def _orders(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two tables of what was read in which order: what it changed by likelihood, and what practice made of it."""
    own = [row for row in rows if "signal_first" in row]
    name = {row["id"]: row["id"].replace("_", " ") + (f" ({_seeds([row])})" if row["seeds"] < own[0]["seeds"] else "") for row in own}
    parts = {
        "choices": ("questions with choices", _points),
        "cloze": ("terms", _points),
        "open": ("open questions, nats a byte", "{:+.3f}".format),
        "near": ("near questions", _points),
        "far": ("far questions", _points),
        "text": ("general text, nats a token", "{:+.3f}".format),
    }
    shown = [part for part in parts if any(f"{part}_gain" in row for row in own)]
    read = [
        [name[row["id"]], *(_interval(row, f"{part}_gain", parts[part][1]) if f"{part}_gain" in row else "" for part in shown)]
        for row in own
        if "choices_gain" in row
    ]
    counts = ", ".join(f"{own[0][f'{part}_n']:,} {parts[part][0].split(',')[0]}" for part in shown)
    counts = counts.replace("general text", "pieces of general text")
    first = _lines(["order", *(parts[part][0] for part in shown)], read, f"{counts}; {_seeds(own)}; intervals (95 %) over these.")
    ahead = next((key for row in own for key in row if key.endswith("_ahead")), "")
    head = [
        "order",
        "before",
        "warm start",
        "practice",
        "gain",
        "each seed",
        "pass@8 before",
        "pass@8 warm start",
        "pass@8 practice",
        "groups with signal",
        "tokens sampled",
    ]
    lines = []
    for row in own:
        right = [_percent(row["base_right"]), _percent(row["warm_start_right"]), _interval(row, "accuracy", _percent)]
        gain = [_interval(row, "gain", _points), ", ".join(map(_points, row["gain_each_seed"]))]
        found = [_percent(row[f"{model}_found"]) for model in ("base", "warm_start", "practice")]
        signal = f"{_percent(row['signal_first'])} to {_percent(row['signal_last'])}"
        spent = f"{row['sampled_tokens']:,.0f}"
        lines.append([name[row["id"]], *right, *gain, *found, signal, spent, _interval(row, ahead, _points) if ahead in row else ""])
    if ahead:
        head.append(f"{ahead.removesuffix('_ahead').replace('_', ' ')} ahead by")
    below = f"{own[0]['n']:,} items, answered greedily, {_seeds(own)}; intervals (95 %) over items; halves of the steps."
    return f"{first}\n{_lines(head, [line[: len(head)] for line in lines], below)}"


def _p(value: float) -> str:
    return f"= {value:.1g}" if value else "< 1e-300"  # which floats do not tell from 0


def _estimator(row: Mapping[str, Any]) -> list[str]:
    measures = [_interval(row, name, "{:.2f}".format) for name in ("ordered_within", "spearman")]
    return [row["id"].replace("_", " "), *measures, f"{row['cost_tokens']:,.0f}"]


def _found(row: Mapping[str, Any]) -> list[str]:
    recall, precision = (_interval(row, name, _percent) for name in ("recall", "precision"))
    ahead = _interval(row, "classifier_ahead", _points) if "classifier_ahead" in row else ""
    return [row["id"], recall, ", ".join(map(_percent, row["recall_each_seed"])), precision, ahead]


def _kept(row: Mapping[str, Any]) -> list[str]:
    share = "" if row.get("gain_share") is None else f"{100 * row['gain_share']:.0f} %"
    measures = [_interval(row, "kept", _percent), _interval(row, "rise", "{:+.3f}".format), f"{row['forward_kl']:.2f}"]
    return [row["id"].replace("_", " "), _interval(row, "accuracy", _percent), _points(row["gain"]), share, *measures]


def _decodings(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a method, of each model over all sets: what it gains by its number of samples, and the rest of what was found where most
    questions were asked, with most samples. Then what the answers of a set mean, and those to questions with evidence, where there are any.
    """
    name, told = first_shown(rows), [row for row in rows if "said" in row]
    sets = dict.fromkeys(row["set"] for row in rows if row["set"] != "all" and not row["set"].startswith("practised") and row not in told)
    parts = [_gains([row for row in rows if row["set"] == name], f"Questions of {', '.join(sets)}")] if sets else []
    if second := [row for row in rows if row["set"] == "practised"]:
        parts.append(_gains(second, "The same of a second model, which practised"))
    if meant := [row for row in rows if "meant" in row and row["set"] != "all"]:
        own = _at_most(meant)
        below = f"{own[0]['n']:,} questions of {own[0]['set']}, nearer to a true than to a false answer; gains paired with greedy answers."
        parts.append(_lines(["method", "by ROUGE-L", "gain", "by embeddings", "gain"], map(_meant, own), below))
    if told:
        head = ["method", "right", "gain", "says it at all", "gain", "words"]
        asked = f"{told[0]['n']:,} questions of {told[0]['set']} with evidence, greedy answers without it"
        parts.append(_lines(head, map(_told, told), f"{asked}; gains paired with plain decoding behind it."))
    return "\n".join(parts)


def first_shown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The set of a study of decoding that is shown first: all together, or the first of the first model; with evidence where there is no
    other.
    """
    names = dict.fromkeys(row["set"] for row in rows if "said" not in row and not row["set"].startswith("practised"))
    return "all" if "all" in names else next(iter(names), rows[0]["set"])


def _gains(rows: Sequence[Mapping[str, Any]], asked: str) -> str:
    """Of one model and set; the numbers of samples beside how many questions were asked with them."""
    found = {_way(row): row for row in rows}
    counts: dict[int, int] = {k: row["n"] for (_, k), row in found.items()}
    head = ["method", *(f"gain, k = {k}" for k in counts), "at k", "right", "no answer", "words", "words of greedy", "names and numbers"]
    head += ["tokens drawn", "time of greedy", "ece", "aurc"]
    lines = []
    for row in _at_most(rows):
        way, k = _way(row)
        gains = [_interval(found[way, k], "gain", _points) if way != "greedy" and (way, k) in found else "" for k in counts]
        lines.append([way.replace("_", " "), *gains, str(k), *_decoding(row)])
    by_n: dict[int, list[str]] = {}
    for k, n in counts.items():
        by_n.setdefault(n, []).append(str(k))
    sizes = ", ".join(f"{n:,} at k = {', '.join(ks)}" for n, ks in by_n.items())
    return _lines(head, lines, f"{asked}: {sizes}; intervals (95 %) over questions, gains paired with greedy answers.")


def _way(row: Mapping[str, Any]) -> tuple[str, int]:
    """The method of a row, and how many samples it had."""
    way, _, k = row["id"].rpartition("_k")
    return way, int(k)


def _at_most(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of every method the row of most questions, and of several that of most samples."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["n"], _way(row)[1])):
        best[_way(row)[0]] = row
    return [best[way] for way in dict.fromkeys(_way(row)[0] for row in rows)]


def _contexts(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a policy, share and way to ask, where no more than a tenth is read or held, or kvpress does it: the mean score over the
    sets, and of each what is lost, paired.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    head = ["policy", "of the tokens", "question", "held", "n", "score", "KL, nats", *(f"{name}, points" for name in sets)]
    lines = []
    little = [row for row in rows if row["id"].startswith(("full", "kvpress")) or min(row["share"], row["held"]) <= 0.1]
    for key in dict.fromkeys((row["id"], row["share"], row.get("question", "")) for row in little):
        own = {row["set"]: row for row in rows if (row["id"], row["share"], row.get("question", "")) == key}
        means = {name: fmean(row[name] for row in own.values()) for name in ("accuracy", "kl", "held") if name in next(iter(own.values()))}
        lost = [_interval(own[name], "loss", _points) if "loss" in own.get(name, {}) else "" for name in sets]
        lost = [
            f"{said} (ours {_interval(own[name], 'ours_ahead', _points)})" if "ours_ahead" in own.get(name, {}) else said
            for said, name in zip(lost, sets, strict=True)
        ]
        if key[0] == "full":
            lost = [_percent(own[name]["accuracy"]) for name in sets]
        held = _percent(means["held"]) if "held" in means else ""
        kl = f"{means['kl']:.3f}" if "kl" in means else ""
        sizes = sorted({row["n"] for row in own.values()})
        n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        lines.append([key[0].replace("_", " "), f"{100 * key[1]:g} %", key[2], held, n, _percent(means["accuracy"]), kl, *lost])
    below = "n of a task; intervals (95 %) over items, paired with the full context. Larger shares are in the study's `result.json`."
    return _lines(head, lines, below)


def _important(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a score and way to ask: what its tenth keeps of worth, over all kinds and of each; then one a length: attention's shares."""
    ranked = [row for row in rows if "worth_kept" in row]
    sets = sorted({row["set"]: None for row in ranked}, key=lambda name: name != "all")
    best = [row["id"] for row in ranked if "best_ahead" not in row]
    lines = []
    for mode, name in dict.fromkeys((row["question"], row["id"]) for row in ranked):
        own = {row["set"]: row for row in ranked if (row["question"], row["id"]) == (mode, name)}
        first = own[sets[0]]
        behind = _interval(first, "best_ahead", _points) if "best_ahead" in first else ""
        kept = [_interval(own[each], "worth_kept", _percent) if each == sets[0] else _percent(own[each]["worth_kept"]) for each in sets]
        lines.append([mode, name.replace("_", " "), *kept, behind, f"{first['correlation']:+.2f}"])
    heads = [f"{name}: worth kept" for name in sets]
    first_n = next(row["n"] for row in ranked if row["set"] == sets[0])
    counted = f"{first_n} items; {', '.join(dict.fromkeys(best))} is what others are compared with; intervals (95 %) over items, paired."
    found = _lines(["question", "score", *heads, "points behind", "rank correlation"], lines, counted)
    lengths = [row for row in rows if "tenth_far" in row]
    if not lengths:
        return found
    names = {"hundredth": "in a hundredth", "tenth": "in a tenth", "hundredth_far": "in a hundredth, far", "tenth_far": "in a tenth, far"}
    counted = (
        f"{lengths[0]['n']} texts; far: without the first 4 and the nearest 32; intervals (95 %) over texts, between them layers and heads."
    )
    shares = [[row["set"], *(_interval(row, name, _percent) for name in names)] for row in lengths]
    return found + "\n" + _lines(["length", *(f"attention {said}" for said in names.values())], shares, counted)


def _known_and_said(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a model and set: what is known by likelihood, in samples and at once, from which layer on, and what methods say."""
    methods = [each["method"] for each in rows[0]["methods"]]
    head = ["set", "model", "likelier than a false one", "of another question", f"in {rows[0]['k']} samples", "at once"]
    head += ["of what is in samples", "more than the base", "ahead of another's from layer", *(name.replace("_", " ") for name in methods)]
    lines = []
    for row in rows:
        shares = [_interval(row, name, _percent) for name in ("likelihood", "chance", "pass_at_k", "greedy", "said")]
        gain = _interval(row, "said_gain", _points) if "said_gain" in row else ""
        layer = "" if row["leads_from"] is None else f"{row['leads_from']:g} of {len(row['leads_after']) - 1}"
        own = [f"{_percent(each['accuracy'])} ({_points(each['gain'])})" for each in row["methods"]]
        lines.append([row["set"], row["id"], *shares, gain, layer, *own])
    sizes = dict.fromkeys(f"{row['n']:,} questions of {row['set']}" for row in rows)
    return _lines(
        head, lines, f"{', '.join(sizes)}; {_seeds(rows)}; intervals (95 %) over questions; behind a method its points on greedy."
    )


def _self_trained(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line an arm and set: greedy accuracy, gains on the start and on single samples, agreement, what is given where half agree."""
    head = ["set", "learned from", "greedy", "gain", "each seed", "on single samples", "on these of the same questions", "samples agree"]
    head += ["largest cluster right", "in 8 samples", "given", "right of these", "aurc", "left out"]
    lines = []
    for row in rows:
        gains = [_interval(row, name, _points) if name in row else "" for name in ("gain", "single_behind", "single_alike_behind")]
        seeds = ", ".join(map(_percent, row["accuracy_each_seed"]))
        drawn = [_percent(row[name]) for name in ("agreement", "largest", "found", "given", "given_right")]
        arm = row["id"].replace("_", " ") + (f" (collapse in {row['collapsed']})" if row["collapsed"] else "")
        ends = [f"{row['aurc']:.3f}" if "aurc" in row else "", _percent(row.get("left_out"))]
        lines.append([row["set"], arm, _interval(row, "accuracy", _percent), gains[0], seeds, *gains[1:], *drawn, *ends])
    sizes = dict.fromkeys(f"{row['n']:,} questions of {row['set']}, samples of {row['sampled_n']:,}" for row in rows)
    return _lines(head, lines, f"{'; '.join(sizes)}; {_seeds(rows)}; intervals (95 %) over questions, gains paired.")


def _meant(row: Mapping[str, Any]) -> list[str]:
    way, k = _way(row)
    gains = ["", ""] if way == "greedy" else [_interval(row, "gain", _points), _interval(row, "meant_gain", _points)]
    return [f"{way.replace('_', ' ')}, k = {k}", _percent(row["accuracy"]), gains[0], _percent(row["meant"]), gains[1]]


def _told(row: Mapping[str, Any]) -> list[str]:
    way, _ = _way(row)
    gains = ["" if way == "context_alone" else _interval(row, name, _points) for name in ("gain", "said_gain")]
    shares = [_interval(row, "accuracy", _percent), _percent(row["said"])]
    return [way.replace("_", " "), shares[0], gains[0], shares[1], gains[1], f"{row['words']:.1f}"]


def _decoding(row: Mapping[str, Any]) -> list[str]:
    said = [f"{row['words']:.1f}", f"{row['greedy_words']:.1f}", f"{row['details']:.2f}"]
    took = [f"{row['tokens']:.0f}", f"{row['seconds_ratio']:.1f}"]
    sure = [f"{row[name]:.3f}" if name in row else "" for name in ("ece", "aurc")]
    return [_interval(row, "accuracy", _percent), _percent(row["not_given"]), *said, *took, *sure]


def _chosen(row: Mapping[str, Any]) -> list[str]:
    gain = _interval(row, "gain", _points) if "gain" in row and row["id"] != "plain" else ""
    others = [f"{row[name]:.3f}" if name in row else "" for name in ("mc2", "mc3")]
    return [row["id"].replace("_", " "), row["set"], _interval(row, "accuracy", _percent), gain, *others]


def _answer(row: Mapping[str, Any]) -> list[str]:
    return [row["id"].replace("_", " "), _interval(row, "accuracy", _percent), f"{row['tokens']:.0f}" if "tokens" in row else ""]


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]], below: str) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), "", below, ""])


def _seeds(rows: Sequence[Mapping[str, Any]]) -> str:
    number = max(row["seeds"] for row in rows)
    return f"{number} seed{'s' if number > 1 else ''}"


def _counted_on(rows: Sequence[Mapping[str, Any]]) -> str:
    items = ", ".join(f"{row['n']:,} items of {row['set']}" for row in rows if row["id"] == rows[0]["id"])
    sampled = next((row["pass_n"] for row in rows if "pass_n" in row), 0)
    return (
        f"Greedy: {items}, {_seeds(rows)}; what is drawn: the first {sampled:.0f} of each seed. "
        "Intervals (95 %) and p are over items, of these runs; how runs differ stands under each seed."
    )


def filled(text: str) -> str:
    """`text` with the table of every study that it has a place for."""
    return _PLACE.sub(lambda found: found[1] + found[2] + _table_of(found[1]), text)


def _table_of(study: str) -> str:
    return markdown(json.loads((ROOT / "studies" / study / "result.json").read_text(encoding="utf8"))["rows"])


def _interval(row: Mapping[str, Any], name: str, write: Any) -> str:
    return f"{write(row[name])} [{write(row[name + '_low'])}, {write(row[name + '_high'])}]"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf8")), encoding="utf8")
