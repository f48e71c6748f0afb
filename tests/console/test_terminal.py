"""What comes from outside does not steer the terminal."""

import io
import logging
from typing import Any

from rich.console import Console as RichConsole

from etude import cli
from etude.console.reporter import Console
from etude.console.terminal import VisibleFormatter, visible
from etude.errors import UserError

EVIL = "x\x1b]0;OWNED\x07\x9b31m\r\u202ey\udcff"
SHOWN = r"x\x1b]0;OWNED\x07\x9b31m\r\u202ey\udcff"


def test_what_steers_a_terminal_is_written_out_and_everything_else_stays():
    assert visible(EVIL) == SHOWN
    ordinary = "two\nlines,\r\n\ta tab, Zürich, 日本, 🙂 and \\x1b"
    assert visible(ordinary) == ordinary


def test_an_error_and_a_log_line_show_what_a_file_or_a_server_is_called(capsys, monkeypatch):
    def refuse(*_: object) -> None:
        raise UserError(f"{EVIL}.jsonl:1: not JSON")

    monkeypatch.setitem(cli.COMMANDS, "report", refuse)
    assert cli.main(["report"]) == 2
    assert capsys.readouterr().err == f"etude: {SHOWN}.jsonl:1: not JSON\n"

    def miss(*_: object) -> None:
        raise FileNotFoundError(2, f"no {EVIL}", f"{EVIL}.jsonl")

    monkeypatch.setitem(cli.COMMANDS, "report", miss)
    assert cli.main(["report"]) == 2
    assert capsys.readouterr().err == f"etude: {SHOWN}.jsonl: no {SHOWN}\n"
    record = logging.LogRecord("etude", logging.WARNING, "", 0, "the judge's server said: %s", (EVIL,), None)
    assert VisibleFormatter("etude: %(message)s").format(record) == f"etude: the judge's server said: {SHOWN}"


def test_the_console_shows_names_from_outside(tmp_path):
    out = io.StringIO()
    row = {"suite": EVIL, "model": "base", "n": 1, "accuracy": 1.0, "accuracy_low": 0.9, "accuracy_high": 1.0, "baselines": {EVIL: 0.1}}
    console = Console(RichConsole(file=out, width=200, highlight=False, soft_wrap=True, markup=False))
    console.measuring("base", EVIL, 3)
    console.concluded({"recipe": EVIL, "seed": 0, "weights": "w", "evaluation": [row], "paired": []}, tmp_path)
    assert out.getvalue().count(SHOWN) == 5 and "\x1b" not in out.getvalue() and "\x9b" not in out.getvalue()


def generated(monkeypatch: Any, *prompts: str) -> None:
    """Run `etude generate` with a model that answers every prompt so that it would steer a terminal."""

    def generate(model: str, prompts: list[str], settings: Any, *, write: Any = None, done: Any) -> list[dict[str, Any]]:
        rows = [{"prompt": prompt, "completions": ["a\x1b[31mb\x9b"]} for prompt in prompts]
        for row in rows:
            if write:
                write(row["completions"][0] + "\n")
            done(row)
        return rows

    monkeypatch.setattr("etude.recipes.generate.generate", generate)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(prompts)))
    assert cli.main(["generate", "tiny-random"]) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_answers_are_shown_on_a_terminal_and_raw_in_a_pipe(monkeypatch, capsys):
    generated(monkeypatch, "q")
    assert capsys.readouterr().out == "a\x1b[31mb\x9b\n"
    generated(monkeypatch, "q", "r")
    assert capsys.readouterr().out.count('"completion": "a\\u001b[31mb\x9b"') == 2
    for prompts, shown in ((("q",), "a\\x1b[31mb\\x9b\n"), (("q", "r"), '"completion": "a\\u001b[31mb\\x9b"')):
        terminal = Terminal()
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", terminal)
            generated(monkeypatch, *prompts)
        assert shown in terminal.getvalue() and "\x1b" not in terminal.getvalue() and "\x9b" not in terminal.getvalue()
