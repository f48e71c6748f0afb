import random
from collections import Counter

import pytest

from etude.errors import UserError
from etude.knowledge.mixture import StudyStage, passes, schedule, windows

DRAW = random.Random(0)
SIZES = {"text": [DRAW.randrange(50, 129) for _ in range(300)], "tasks": [DRAW.randrange(5, 40) for _ in range(40)], "replay": [128] * 20}


def tokens_of(pieces, sizes=SIZES):
    counts = Counter()
    for piece in pieces:
        counts[piece.source] += sizes[piece.source][piece.place]
    return counts


def flat(steps):
    return [piece for step in steps for piece in step]


@pytest.mark.parametrize("weights", [{"text": 1, "tasks": 1}, {"text": 75, "tasks": 25}, {"text": 0.6, "tasks": 0.1, "replay": 0.3}])
def test_at_every_moment_the_shares_are_right_within_a_piece(weights):
    pieces = flat(schedule(SIZES, StudyStage("mixed", weights, 20_000), 500, key=1))
    largest = max(map(max, SIZES.values()))
    for upto in range(1, len(pieces) + 1, 7):
        read = tokens_of(pieces[:upto])
        for name, weight in weights.items():
            assert abs(read[name] - weight / sum(weights.values()) * sum(read.values())) <= largest


def test_a_stage_has_its_tokens_and_steps_of_their_size():
    steps = schedule(SIZES, StudyStage("mixed", {"text": 1, "tasks": 1}, 20_000), 500, key=1)
    read = [sum(tokens_of(step).values()) for step in steps]
    assert 20_000 <= sum(read) < 20_000 + 129
    assert all(500 <= tokens < 500 + 129 for tokens in read[:-1])


def test_a_source_gives_every_piece_before_one_comes_again():
    pieces = [
        piece.place
        for piece in flat(schedule(SIZES, StudyStage("tasks", {"tasks": 1, "text": 1}, 20_000), 500, key=1))
        if piece.source == "tasks"
    ]
    whole = len(pieces) // 40
    assert whole >= 5
    orders = [pieces[40 * number : 40 * (number + 1)] for number in range(whole)]
    assert all(sorted(order) == list(range(40)) for order in orders) and orders[0] != orders[1]


def test_the_schedule_depends_on_key_and_stage_alone_and_a_longer_stage_begins_as_a_shorter_one():
    short, long = (flat(schedule(SIZES, StudyStage("a", {"text": 2, "tasks": 1}, tokens), 500, 1)) for tokens in (3_000, 9_000))
    assert long[: len(short)] == short

    def made(name, key):
        return schedule(SIZES, StudyStage(name, {"text": 1, "replay": 1}, 5_000), 500, key)

    assert made("a", 1) == made("a", 1) and made("a", 1) != made("a", 2) and made("a", 1) != made("b", 1)


def test_one_source_alone_is_passes_over_it():
    steps = schedule(SIZES, StudyStage("text", {"text": 1, "tasks": 0}, sum(SIZES["text"])), 500, key=1)
    assert sorted(piece.place for piece in flat(steps)) == list(range(300))
    assert passes(steps, SIZES) == {"text": 1.0, "tasks": 0.0, "replay": 0.0}


def test_windows_learn_every_token_of_every_document_once():
    documents = [tuple(range(10, 10 + length)) for length in (1, 4, 5, 9)]
    found = list(windows(documents, 4, end_of_text=0))
    learned = [token for _, window in found for token in window]
    assert learned == [token for document in documents for token in (*document, 0)]
    assert all(len(before) == 1 and 1 <= len(window) <= 4 for before, window in found)
    assert sum(before == (0,) for before, _ in found) == len(documents)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (StudyStage("a", {"txet": 1}, 10), "stages.a.weights: 'txet' is no source: there are replay, tasks, text"),
        (StudyStage("a", {"text": -1}, 10), "stages.a.weights: text must be 0 or more, got -1"),
        (StudyStage("a", {"text": 0}, 10), "stages.a.weights must have one above 0"),
        (StudyStage("a", {"text": 1}, 0), "stages.a.tokens must be at least 1, got 0"),
    ],
)
def test_a_stage_that_cannot_be_is_named(stage, sentence):
    with pytest.raises(UserError, match=sentence):
        stage.check("stages.a", SIZES)
    with pytest.raises(UserError, match="stage a: source tasks is empty"):
        schedule({"tasks": []}, StudyStage("a", {"tasks": 1}, 10), 5, key=1)
