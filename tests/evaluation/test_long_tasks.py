"""Long texts by seed: as long as asked, with the answer in them, and scored by what is said."""

import json
from random import Random

import pytest

from etude.errors import UserError
from etude.evaluation.long.facts import babi_generator, read_babi
from etude.evaluation.long.haystack import NOISE, Haystack, sentences_of
from etude.evaluation.long.kinds import KINDS
from etude.evaluation.long.task import LongTask
from etude.evaluation.long.tokenized import generators_by_kind, make_haystack, make_tasks, tokenize_task

TEXT = "\n\n".join(f"Once there were {number} cats. They sat on {number + 1} mats, and slept." for number in range(200))


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture
def haystack():
    return Haystack(TEXT, words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [300, 1000, 5000])
def test_a_task_has_the_requested_length_and_contains_its_answer(kind, tokens, haystack):
    seen = set()
    for seed in range(5):
        task = KINDS[kind](Random(seed), haystack, tokens)
        assert tokens * 0.85 <= words(task.context) <= tokens, "longer than the text itself too"
        assert all(answer in task.context for answer in task.answers)
        assert task == KINDS[kind](Random(seed), haystack, tokens)
        assert task.score(f"It is {', '.join(task.answers)}.") == 1.0 and task.score("I do not know.") == 0.0
        assert task.depth is None or 0 <= task.depth <= 1
        seen.add(task.answers)
    assert len(seen) == 5


def test_the_question_asks_for_the_hidden_number(haystack):
    one = KINDS["single"](Random(0), haystack, 300)
    assert one.context.count("special magic number") == 1 and f"is: {one.answers[0]}." in one.context
    others = KINDS["multi_key"](Random(0), haystack, 300)
    assert others.context.count("special magic number") == 4
    name = others.begin.removeprefix("The special magic number for the ").removesuffix(" mentioned in the text is")
    assert f"for the {name} is: {others.answers[0]}." in others.context
    many = KINDS["multi_value"](Random(0), haystack, 300)
    assert len(many.answers) == 2 and many.score(many.answers[0]) == 0.5
    chain = KINDS["variables"](Random(0), haystack, 300)
    number = chain.question.split()[5]
    assert f"VAR {chain.answers[0]} = {number}." in chain.context
    for before, name in zip(chain.answers, chain.answers[1:], strict=False):
        assert (
            chain.context.index(f"= VAR {before}.") > chain.context.index(f"VAR {before} =")
            and f"VAR {name} = VAR {before}." in chain.context
        )
    frequent = KINDS["frequent"](Random(0), haystack, 1000)
    counts = [frequent.context.split().count(word) for word in frequent.answers]
    assert counts == sorted(counts, reverse=True) and counts[-1] >= max(
        frequent.context.split().count(word) for word in set(frequent.context.split()) - set(frequent.answers)
    )
    common = KINDS["common"](Random(0), haystack, 2000)
    assert {common.context.split().count(word) for word in common.answers} == {30}


def test_needles_lie_anywhere_and_their_depth_is_said(haystack):
    tasks = [KINDS["single"](Random(seed), haystack, 1000) for seed in range(60)]
    for task in tasks:
        found = words(task.context[: task.context.index("One of the special")]) / words(task.context)
        assert task.depth == pytest.approx(found, abs=0.05)
    assert min(task.depth for task in tasks) < 0.1 and max(task.depth for task in tasks) > 0.9


def test_sentences_keep_their_quotes_and_lose_their_markup():
    assert sentences_of('# One\n\nHe said: "Go." She\n*went*. And?') == ["One", 'He said: "Go."', "She went.", "And?"]
    with pytest.raises(UserError, match="has no sentence"):
        Haystack(" \n\n ", words)
    with pytest.raises(UserError, match="no room for what is hidden in it"):
        Haystack(NOISE, words).around(Random(0), ["a b c d"], 5)


def test_a_start_before_a_sentence_that_is_too_long_is_sampled_again():
    text = f"{NOISE} {'word ' * 60}end. {NOISE}"
    haystack, draw = Haystack(text, words), Random(3)
    for _ in range(50):
        context, (depth,) = haystack.around(draw, ["needle here."], 40)
        assert words(context) >= 19 and 0 <= depth <= 1, "behind the long sentence, not just before it"
    with pytest.raises(UserError, match="no room for what is hidden in it"):
        haystack.around(draw, ["needle here."], 2)


def test_answers_are_words_in_a_row_or_alike():
    task = LongTask("facts", "", "", "", ("a cat", "two dogs"))
    assert (task.score("I saw a cat."), task.score("two dogs, a cat"), task.score("a big cat")) == (0.5, 1.0, 0.0)
    alike = LongTask("stories", "", "", "", ("the cat sat", "a dog ran"), by_likeness=True)
    assert alike.score("the cat sat") == 1.0 and 0 < alike.score("a dog slept") < 1


def test_facts_of_babi_lie_in_order_between_sentences(haystack, tmp_path):
    file = tmp_path / "qa1.txt"
    file.write_text(
        "1 Mary went home.\n2 John went out.\n3 Where is Mary? \thome\t1\n4 Mary left.\n"
        "5 Where is John? |out|2\n1 Eve sat.\n2 Who sat?\tEve\t1\n"
    )
    assert read_babi(file) == [
        (["Mary went home.", "John went out."], "Where is Mary?", "home"),
        (["Mary went home.", "John went out.", "Mary left."], "Where is John?", "out"),
        (["Eve sat."], "Who sat?", "Eve"),
    ]
    tasks = [babi_generator(file)(Random(seed), haystack, 200) for seed in range(9)]
    long = next(task for task in tasks if task.answers == ("out",))
    assert long.context.index("Mary went home.") < long.context.index("John went out.") < long.context.index("Mary left.")
    for content, message in (("no number\n", "begins with a number"), ("1 Mary went home.\n", "has no question")):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            babi_generator(file)


def test_meetings_and_stories_are_cut_to_a_length_around_what_answers(haystack, tmp_path):
    turns = [{"speaker": f"S{number}", "content": f"turn {number} of this meeting"} for number in range(100)]
    query = {"query": "What was said?", "answer": "turn fifty", "relevant_text_span": [["50", "52"]]}
    (tmp_path / "m.jsonl").write_text(json.dumps({"specific_query_list": [query], "meeting_transcripts": turns}) + "\n")
    story = {
        "document": "\n".join(f"paragraph {number} of it" for number in range(50)),
        "questions": [{"question_text": "Why?", "responses": [{"response_text": "because"}]}],
    }
    (tmp_path / "s.jsonl").write_text(json.dumps(story) + "\n")
    made = generators_by_kind({"meetings": tmp_path / "m.jsonl", "stories": tmp_path / "s.jsonl"})
    meeting = made["meetings"](Random(0), haystack, 60)
    assert meeting.context.split("\n")[0].startswith("S46") and "S52: turn 52" in meeting.context and words(meeting.context) <= 60
    story = made["stories"](Random(0), haystack, 60)
    assert story.context.startswith("paragraph 0 of it\nparagraph 1") and words(story.context) <= 60 and story.by_likeness
    assert "facts" not in made


def test_a_prompt_in_two_pieces_is_the_whole_one(tokenizer, chat_tokenizer):
    for each in (tokenizer, chat_tokenizer):
        made = make_tasks(each, "single", KINDS["single"], make_haystack([TEXT], each), tokens=400, n=3, seed=1)
        more = make_tasks(each, "single", KINDS["single"], make_haystack([TEXT], each), tokens=400, n=5, seed=1)
        assert more[:3] == made
        for one in made:
            assert 330 <= len(one.text) + len(one.question) <= 400
            whole = each.decode([*one.text, *one.question])
            assert one.task.context in whole and whole.endswith(one.task.begin)
            assert (one.text, one.question) == tokenize_task(each, one.task)
    with pytest.raises(UserError, match="set tokens to more"):
        make_tasks(tokenizer, "single", KINDS["single"], make_haystack([], tokenizer), tokens=150, n=1, seed=0)


def test_a_text_is_cut_until_its_question_fits_however_long_its_sentences_are(chat_tokenizer):
    """Room that shrinks by the few tokens that are too much would not let go of a sentence."""
    long = " ".join(f"So it was on day {day}, and {'so it was then, and ' * 4}nobody knew why." for day in range(40))
    haystack = make_haystack([long], chat_tokenizer)
    for tokens in range(700, 1000, 7):
        (each,) = make_tasks(chat_tokenizer, "single", KINDS["single"], haystack, tokens=tokens, n=1, seed=tokens)
        assert tokens - 300 < len(each.text) + len(each.question) <= tokens
