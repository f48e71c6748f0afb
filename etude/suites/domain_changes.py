"""Changes of the domain suite between two measurements of one model."""

from collections.abc import Mapping, Sequence
from typing import Any

from etude.evaluation.report.number_format import short_p_value
from etude.evaluation.statistics import mean_interval, paired_test


def paired_changes(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare each pair of rows: points and p of accuracies, points of F1, nats per byte of open answers, nats per token of text."""
    found = []
    for first, second in zip(before, after, strict=True):
        change: dict[str, Any] = {
            "part": first["part"],
            "name": first["name"],
            "n": first["n"],
            "before": first["value"],
            "after": second["value"],
        }
        if "f1s" in first:
            differences = [now - then for then, now in zip(first["f1s"], second["f1s"], strict=True)]
            low, high = mean_interval(differences)
            change |= {"difference": sum(differences) / len(differences), "low": low, "high": high}
        elif "bits" in first:
            own, its = ([bit == "1" for bit in row["bits"]] for row in (first, second))
            test = paired_test(own, its)
            change |= {"difference": test.difference, "low": test.difference_low, "high": test.difference_high, "p_value": test.p_value}
            change["nats"] = second["nats"] - first["nats"]
        else:
            each = "windows" if "windows" in first else "each"
            differences = [now - then for then, now in zip(first[each], second[each], strict=True)]
            low, high = mean_interval(differences)
            change |= {"nats": sum(differences) / len(differences), "nats_low": low, "nats_high": high}
        found.append(change)
    return found


def format_change(change: Mapping[str, Any]) -> str:
    """Format a change as a line."""
    named = f"{change['part']:<8} {change['name']:<38}"
    if "difference" not in change:
        unit = "a token" if change["part"] == "text" else "a byte"
        return f"{named} {change['nats']:+.3f} nats {unit} [{change['nats_low']:+.3f}, {change['nats_high']:+.3f}]"
    points = [100 * change[name] for name in ("before", "after", "difference", "low", "high")]
    moved = "{:.1f} to {:.1f} %, {:+.1f} points [{:+.1f}, {:+.1f}]".format(*points)
    more = f", {short_p_value(change['p_value'])}, {change['nats']:+.3f} nats a byte" if "p_value" in change else " of F1"
    return f"{named} {moved}{more} (n = {change['n']})"
