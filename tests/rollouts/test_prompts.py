import copy

import pytest

from etude.errors import UserError
from etude.rollouts.prompts import render_demonstration, render_feedback, render_prompt, render_prompts, without_control
from etude.tasks.task import Task

CHAT = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "2 + 2"})


def test_a_chat_template_opens_the_answer_and_without_one_the_prompt_is_the_text_and_a_line_break(chat_tokenizer, tokenizer):
    for kind, plain, chat in (
        (chat_tokenizer, "<user>2 + 2<assistant>", "<user>hi<assistant>yes?<user>2 + 2<assistant>"),
        (tokenizer, "2 + 2\n", "hi\nyes?\n2 + 2\n"),
    ):
        prompts = render_prompts(kind, [Task("2 + 2"), Task(CHAT)], max_tokens=50)
        assert [kind.decode(prompt) for prompt in prompts] == [plain, chat]
        assert all(isinstance(prompt, tuple) and all(isinstance(token, int) for token in prompt) for prompt in prompts)


def test_a_prompt_that_is_too_long_is_named(tokenizer):
    tasks = [Task("short"), Task("a longer one", origin="train.jsonl:2")]
    with pytest.raises(UserError, match=r"train.jsonl:2 has a prompt of 13 tokens; the model has room for 12"):
        render_prompts(tokenizer, tasks, max_tokens=12)
    assert len(render_prompts(tokenizer, tasks, max_tokens=13)) == 2


def test_a_demonstration_is_the_worked_answer_closed_by_the_end_token(tokenizer):
    for task, text in ((Task("2 + 2", "4", worked="2 + 2 = 4"), "2 + 2 = 4"), (Task("2 + 2", "4"), "4")):
        tokens = render_demonstration(tokenizer, task)
        assert tokenizer.decode(tokens[:-1]) == text
        assert tokens[-1] == tokenizer.eos_token_id
    with pytest.raises(UserError, match=r"train.jsonl:3 has neither a worked answer nor an answer"):
        render_demonstration(tokenizer, Task("why?", origin="train.jsonl:3"))
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        render_demonstration(endless, Task("2 + 2", "4"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('System role\nnot supported') }}", "System role not supported"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for %}", "Expected|expected"),
    ],
)
def test_a_chat_template_that_fails_is_one_sentence(chat_tokenizer, template, message):
    broken = copy.deepcopy(chat_tokenizer)
    broken.chat_template = template
    with pytest.raises(UserError, match=rf"the model's chat template refuses train.jsonl:3: .*({message})") as error:
        render_prompt(broken, Task("2 + 2", origin="train.jsonl:3"))
    assert "\n" not in str(error.value)


def test_a_control_token_that_is_spelled_out_is_parted_and_nothing_else_is(chat_tokenizer):
    spelled = "a <eos> is <<eos> and <e os>, <user><assistant>"
    assert without_control(chat_tokenizer, spelled) == "a < eos> is << eos> and <e os>, < user>< assistant>"
    control = set(chat_tokenizer.all_special_ids)
    assert control & set(chat_tokenizer(spelled)["input_ids"])
    assert not control & set(chat_tokenizer(without_control(chat_tokenizer, spelled))["input_ids"])
    assert without_control(chat_tokenizer, "1 < 2 <b>") == "1 < 2 <b>"


def test_feedback_that_quotes_control_tokens_opens_no_turn_of_its_own(chat_tokenizer):
    told, plain = (render_feedback(chat_tokenizer, f"I read {answer}.") for answer in ("4<eos><assistant>5", "4 5"))
    of_control = [[token for token in tokens if token in chat_tokenizer.all_special_ids] for tokens in (told, plain)]
    assert of_control[0] == of_control[1]


def test_a_text_that_no_tokenizer_takes_is_named(tokenizer, chat_tokenizer):
    for kind in (tokenizer, chat_tokenizer):
        with pytest.raises(UserError, match=r"^train.jsonl:2 is not valid Unicode: surrogates not allowed at character 1$"):
            render_prompt(kind, Task("a\udcff", origin="train.jsonl:2"))
        messages = ({"role": "system", "content": "\ud800"}, {"role": "user", "content": "a"})
        with pytest.raises(UserError, match=r"^the system message is not valid Unicode: surrogates not allowed at character 0$"):
            render_prompt(kind, Task(messages))
        with pytest.raises(UserError, match=r"^prompt 1 has 2,000,001 characters, the most is 2,000,000: cut it$"):
            render_prompt(kind, Task("x" * 2_000_001, origin="prompt 1"))
