"""Write the table of a study whose arms are practice runs: accuracy, gains, samples, time and what practice sampled."""

from collections.abc import Sequence
from operator import itemgetter

from experiments.tables import Column, Row, each, interval, name_of, percent, points, seeds_of, table, value

SAMPLED = {
    "sampled_accuracy": "sampled",
    "majority_at_8": "majority@8",
    "majority_at_32": "majority@32",
    "pass_at_8": "pass@8",
    "pass_at_32": "pass@32",
}
"""Measures of sampled answers, and their heads."""


def arms_table(rows: Sequence[Row], baseline: str = "practice", more: Sequence[Column] = ()) -> str:
    """Write one line an arm and set; `more` are columns of the study's own."""
    most = max(row["seeds"] for row in rows)
    is_of_several = len({row["set"] for row in rows}) > 1
    columns = [
        *([Column("set", itemgetter("set"))] if is_of_several else []),
        Column("arm", lambda row: name_of(row) + (f" ({seeds_of([row])})" if row["seeds"] < most else "")),
        Column("greedy", interval("accuracy", percent)),
        Column("gain over the warm start", _gain),
        Column("gain per seed", each("gain_each_seed", points)),
        *(Column(head, value(name, percent), needs=name) for name, head in SAMPLED.items()),
        Column(f"{baseline.replace('_', ' ')} minus arm", interval(f"{baseline}_ahead", points)),
        Column("training", value("training_seconds", "{:.0f} s".format)),
        Column("tokens sampled", value("sampled_tokens", "{:,.0f}".format), needs="sampled_tokens"),
        Column("entropy, nats a token", value("entropy", "{:.2f}".format), needs="sampled_tokens"),
        Column("KL, nats an answer", value("divergence", "{:.2f}".format), needs="sampled_tokens"),
        *more,
    ]
    return table(rows, columns, _below(rows))


def _gain(row: Row) -> str:
    if "gain" not in row:
        return ""
    p = f"= {row['gain_p']:.1g}" if row["gain_p"] else "< 1e-300"  # which floats do not tell from 0
    return f"{interval('gain', points)(row)}, p {p}"


def _below(rows: Sequence[Row]) -> str:
    items = ", ".join(f"{row['n']:,} items of {row['set']}" for row in rows if row["id"] == rows[0]["id"])
    sampled = next((row["pass_n"] for row in rows if "pass_n" in row), 0)
    return (
        f"Greedy: {items}, {seeds_of(rows)}; sampled answers: the first {sampled:.0f} of each seed. "
        "95 % intervals and p-values are over items; the gain per seed shows how runs differ."
    )
