from etude.evaluation.baselines import trivial_answers, trivial_baselines
from etude.evaluation.same_wording import same_wording_answers
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import VERIFIERS


def judge(pairs):
    return [VERIFIERS[task.verifier](text, task) for text, task in pairs]


def test_number_rules_read_the_question():
    answers = trivial_answers(["4", "9", "4"], Task("Tom has 3 pens, buys 4.5 and loses 1,000.", "7"))
    assert answers == {
        "first_number": "3",
        "last_number": "1000",
        "largest_number": "1000",
        "smallest_number": "3",
        "sum": "1007.5",
        "difference": "997",
        "product": "13500",
        "most_frequent": "4",
    }


def test_rules_that_do_not_apply_are_left_out():
    assert trivial_answers([], Task("Which colour?", "red")) == {}
    assert set(trivial_answers([], Task("Give 5.", "5"))) == {"first_number", "last_number", "largest_number", "smallest_number"}
    assert trivial_answers([], Task("Which?", "B", metadata={"choices": ["a", "b"]})) == {"first_choice": "A"}


def test_lists_are_written_as_the_gold_answer_is():
    question = "Sort these numbers in ascending order: 3, -1.5, 2\nWrite ['1', '2'] and not 1, 2."
    assert trivial_answers([], Task(question, "['-1.5', '2', '3']"))["list_as_given"] == "['3', '-1.5', '2']"
    assert trivial_answers([], Task(question, '["-1.5", "2", "3"]'))["list_reversed"] == '["2", "-1.5", "3"]'
    assert trivial_answers([], Task(question, "[-1.5, 2, 3]"))["list_as_given"] == "[3, -1.5, 2]"
    assert trivial_answers([], Task(question, "-1.5, 2, 3"))["list_as_given"] == "3, -1.5, 2"
    assert trivial_answers([], Task("Reverse the list [b, a].", "a, b"))["list_reversed"] == "a, b"
    assert trivial_answers([], Task("Order pear, apple, fig please.", "apple, fig, pear"))["list_reversed"] == "fig, apple, pear"


def test_accuracies_are_shares_of_all_tasks():
    tasks = [Task("What is 3 + 4?", "7", "numeric"), Task("What is 2 + 2?", "4", "numeric"), Task("No numbers here", "7", "numeric")]
    accuracies = trivial_baselines([Task(f"q{i}", answer) for i, answer in enumerate("771")], tasks, judge).accuracies
    assert accuracies["sum"] == 2 / 3
    assert accuracies["most_frequent"] == 2 / 3
    assert accuracies["product"] == 1 / 3
    assert accuracies["difference"] == 0.0
    assert list(accuracies.values()) == sorted(accuracies.values(), reverse=True)
    assert trivial_baselines([Task("q", "7")], [], judge) == ({}, {})


def test_hostile_questions_are_bounded():
    for question in ("1 " * 5_000, "a, " * 20_000, "[" * 50_000, ": a" * 20_000):
        trivial_answers(["1"], Task(question, "a, b"))


def test_the_nearest_question_is_the_one_with_most_words_in_common():
    train = [Task("Ann is married to Bob. What is Ann to Bob?", "wife"), Task("Ann has a child, Tim. What is Tim to Ann?", "son")]
    tasks = [Task("Eve is married to Jim. What is Eve to Jim?", "wife"), Task("Eve has a child, Joe. What is Joe to Eve?", "son")]
    assert trivial_baselines(train, tasks, judge).accuracies["nearest_question"] == 1.0
    assert "nearest_question" not in trivial_baselines([], tasks, judge).accuracies


def test_questions_that_differ_in_names_and_numbers_only_have_one_wording():
    train = [
        Task("Ann is Bob's wife. Tim is their son. What is Tim to Ann?", "son"),
        Task("Zoe is Max's wife. Lee is their son. What is Zoe to Max?", "wife"),
        Task("Which comes first, 7 or 12? Ask Kim.", "7"),
        Task("Which comes first, 9 or 15? Ask Pat.", "9"),
        Task("Which comes first, 9 or 15? Ask Sue.", "Sue"),
    ]
    tasks = [
        Task("Eve is Jim's wife. Joe is their son. What is Joe to Eve?", "son"),
        Task("Eve is Jim's wife. Joe is their son. What is Eve to Jim?", "wife"),
        Task("Which comes first, 3 or 4? Ask Ian.", "3"),
        Task("Another wording?", "x"),
    ]
    assert same_wording_answers(train, tasks) == ["son", "wife", "3", None]
    assert trivial_baselines(train, tasks, judge).accuracies["same_wording"] == 0.75


def test_the_wording_baseline_finds_a_family_that_can_be_memorised():
    family = TaskSource(family="family_relationships")
    train, tasks = (load_tasks(family, split=split, n=n, seed=0) for split, n in (("train", 1024), ("test", 200)))
    right = sum(answer == task.answer for answer, task in zip(same_wording_answers(train, tasks), tasks, strict=True))
    assert right / len(tasks) > 0.8  # 2.7 million items, and a few hundred forms
