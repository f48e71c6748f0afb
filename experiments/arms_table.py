"""Write the table of a study whose arms are practice runs: accuracy, gains, samples, time and what practice sampled."""

from collections.abc import Sequence
from operator import itemgetter

from experiments.arms import SAMPLED
from experiments.tables import Column, Row, arm_column, each_over_runs, interval, p_value, percent, points, seeds_of, table, value


def arms_table(rows: Sequence[Row], baseline: str = "practice", more: Sequence[Column] = (), start: str = "the warm start") -> str:
    """Write one line an arm and set; `more` are columns of the study's own, `start` is what gains are over."""
    is_of_several = len({row["set"] for row in rows}) > 1
    ahead, name = f"{baseline}_ahead", baseline.replace("_", " ")
    columns = [
        *([Column("set", itemgetter("set"))] if is_of_several else []),
        arm_column(rows),
        Column("greedy", interval("accuracy", percent)),
        Column(f"gain over {start} [items]", _gain),
        Column("gain per seed [runs]", each_over_runs("gain", points)),
        *(Column(head, value(measure, percent), needs=measure) for measure, head in SAMPLED.items()),
        Column(f"{name} minus arm [items]", interval(ahead, points)),
        Column("per seed [runs]", each_over_runs(ahead, points), needs=f"{ahead}_each_seed"),
        Column(f"pass@8: {name} minus arm [runs]", each_over_runs(f"pass_at_8_{ahead}", points), needs=f"pass_at_8_{ahead}_run_low"),
        Column("training", value("training_seconds", "{:.0f} s".format)),
        Column("tokens sampled", value("sampled_tokens", "{:,.0f}".format), needs="sampled_tokens"),
        Column("entropy, nats a token", value("entropy", "{:.2f}".format), needs="sampled_tokens"),
        Column("KL(now || start), nats an answer", value("divergence", "{:.2f}".format), needs="sampled_tokens"),
        *more,
    ]
    return table(rows, columns, _below(rows))


def _gain(row: Row) -> str:
    return f"{interval('gain', points)(row)}, {p_value(row['gain_p'])}" if "gain" in row else ""


def _below(rows: Sequence[Row]) -> str:
    items = ", ".join(f"{row['n']:,} items of {row['set']}" for row in rows if row["id"] == rows[0]["id"])
    number = next((row["pass_n"] for row in rows if "pass_n" in row), 0)
    is_chosen = any("greedy_on_sampled" in row for row in rows)  # older cells sampled the first tasks
    sampled = f"{number:.0f} tasks of each seed, chosen by a hash" if is_chosen else f"the first {number:.0f} of each seed"
    own = f"; sampled answers: {sampled}" if number else ""
    return f"Greedy: {items}, {seeds_of(rows)}{own}. 95 % intervals: [items] and p-values over items, [runs] over seeds (t)."
