"""Attempts for the page's script, as JSON that is safe inside `<script>`; long texts are clipped in the middle."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from etude.evaluation.report.number_format import is_number, number_or_none
from etude.evaluation.report.run_folder import Run
from etude.evaluation.rewards import is_item_right

MAX_TEXT = 4000
"""Maximum number of characters of one text."""
MAX_BYTES = 10_000_000
"""Maximum size of all attempts as JSON; above it the limit of one text is lowered."""
_MIN_TEXT = 60


def attempts_json(runs: Sequence[Run]) -> Markup:
    """Encode the attempts for the page's script, every question once. Safe inside `<script>`: no `<`, `>` or `&` is left."""
    limit = MAX_TEXT
    while len((text := _escaped(runs, limit)).encode("utf-8", errors="replace")) > MAX_BYTES and limit > _MIN_TEXT:
        limit //= 2
    return Markup(text)


def _escaped(runs: Sequence[Run], limit: int) -> str:
    text = json.dumps([_run_json(run, limit) for run in runs], ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _run_json(run: Run, limit: int) -> dict[str, Any]:
    questions: dict[tuple[str, str, str], int] = {}
    attempts = []
    for attempt in run.attempts:
        question = (str(attempt.get("task")), clip(attempt.get("question"), limit), clip(attempt.get("answer"), limit))
        attempts.append(
            {
                "question": questions.setdefault(question, len(questions)),
                "text": clip(attempt.get("text"), limit),
                "message": clip(attempt.get("message"), limit),
                "outcome": outcome_of(attempt),
                **{name: number_or_none(attempt.get(name)) for name in ("step", "index", "score", "tokens", "advantage", "parsable")},
                "finish": str(attempt.get("finish") or ""),
                "turns": _turns(attempt.get("turns"), limit),
            }
        )
    return {"name": run.name, "total": run.num_attempts, "questions": list(questions), "attempts": attempts}


def _turns(turns: Any, limit: int) -> list[dict[str, Any]]:
    """Return text, feedback, score and advantage of each turn of a revised attempt."""
    return [
        {
            "text": clip(turn.get("text"), limit),
            "told": clip(turn.get("told"), limit),
            **{name: number_or_none(turn.get(name)) for name in ("score", "advantage")},
        }
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict)
    ]


def outcome_of(judged: Mapping[str, Any]) -> str:
    """Classify a row with `score` and `right` (by the verifier's threshold) as right, wrong or unscored; None is unscored, never wrong."""
    if not is_number(judged.get("score")):
        return "unscored"
    return "right" if is_item_right(judged) else "wrong"


def clip(text: Any, limit: int) -> str:
    """Cut the middle out of a text longer than the limit (the answer is usually at the end)."""
    text = "" if text is None else str(text)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n[\u2026 {len(text) - limit:,} characters left out \u2026]\n{text[-(limit - limit // 2) :]}"
