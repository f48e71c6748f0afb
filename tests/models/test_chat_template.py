import time

import pytest

from etude.errors import UserError
from etude.models import chat_template
from etude.models.chat_template import check_chat_template

HOSTILE = {
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(999) %}{% endfor %}{% endfor %}{% endfor %}", "end"),
    "memory": ("{% set x = namespace(t='x') %}{% for i in range(40) %}{% set x.t = x.t ~ x.t %}{% endfor %}", "more than 0.2 GB of memory"),
    "length": ("{% for i in range(99999) %}{{ 'twenty characters... ' }}{% endfor %}", "writes 2,099,979 characters for a short question"),
}


class Tokenizer:
    special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}  # noqa: RUF012

    def __init__(self, template):
        self.chat_template = template


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_template_that_would_not_end_is_refused(kind, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 1)
    monkeypatch.setattr(chat_template, "WALL_SECONDS", 5)
    monkeypatch.setattr(chat_template, "MEMORY_BYTES", 200_000_000)
    template, message = HOSTILE[kind]
    begun = time.monotonic()
    with pytest.raises(UserError, match=rf"^model 'it': its chat template .*{message}.*: correct the template, or remove it$"):
        check_chat_template("it", Tokenizer({"default": "{{ messages }}", "tools": template}))
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for m in messages %}{{ bos_token + m['role'] }}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}",
        "{{ raise_exception('no system message') }}",
        "{{ messages | tojson(indent=2) }}{{ strftime_now('%Y') }}",
        "{{ it is broken",
    ],
)
def test_a_template_may_refuse_messages(template):
    check_chat_template("it", Tokenizer(template))


def test_a_model_with_a_hostile_template_is_not_loaded(llama, tokenizer, tmp_path, monkeypatch):
    from etude.models.load import load_model
    from etude.models.save import save_model

    monkeypatch.setattr(chat_template, "SECONDS", 1)
    monkeypatch.setattr(chat_template, "WALL_SECONDS", 5)
    folder = save_model(llama, tokenizer, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ 11 ** (10 ** 9) }}")
    with pytest.raises(UserError, match=r"model '.*/model': its chat template does not end within"):
        load_model(str(folder))
