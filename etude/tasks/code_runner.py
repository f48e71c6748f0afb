"""The process that runs a model's program against the tests of a task; `etude.tasks.code` starts one for each answer:

    supervisor      reads the program, forks a process for each test, then reads the tests, and says which of them hold
      program       one for each test: confined (`etude.tasks.code_confinement`), runs the program, and computes the calls of its test

A program's process is forked before the tests are read, so that no expected value is in its memory. What it prints and replies goes into
files in memory, which hold 1 MiB at most and are read when it is dead. It can start no process, so killing it leaves nothing behind, and
it dies with the supervisor. The supervisor confines itself too before it compares, since the tests come from data.

Standard input: two messages, each its length in 8 bytes and then JSON: {"program", "kinds"} and {"tests", "setup"}, with one entry for each
test: its kind, and its text or {"input", "output"}. Standard output: {"syntax", "failures"}: why the program does not compile, or "", and
for each test what failed, or "" if it holds.
"""

import ast
import fcntl
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

from etude.processes import kill_with_parent
from etude.tasks.code_asserts import SplitAssert, from_plain, split_assert, to_plain
from etude.tasks.code_confinement import FILE_BYTES, confine, hide_memory, limit_memory, limit_resources

TEST_SECONDS = 2
"""Time limit of a test."""
ALL_SECONDS = 4.0
"""Time limit of all tests of an answer."""
_COMPARING_SECONDS = 1.0
_LONGEST_PROBLEM = 300
_NO_REPLY = "the program ended before its test"
_REPLY, _ASKED, _WAITS = 3, 4, 5
"""File descriptors of a program's process, after 0 (its input), 1 (its output) and 2 (nowhere)."""


def main() -> None:
    """Run the program on the tests, and write which of them hold."""
    results = os.dup(1)
    kill_with_parent(int(sys.argv[2]), signal.SIGKILL)
    hide_memory()
    limit_memory()
    first = _read_message()
    try:
        tree = ast.parse(first["program"])
        code = compile(tree, "answer", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return _write(results, {"syntax": _named(error), "failures": []})
    programs = [Program.start(code, kind) for kind in first["kinds"]]
    second = _read_message()
    confine(supervises=True)
    judge = Judge(second["setup"], _definitions(tree))
    deadline = time.monotonic() + ALL_SECONDS
    failures = [_one_line(judge.failure(program, test, deadline)) for program, test in zip(programs, second["tests"], strict=True)]
    _write(results, {"syntax": "", "failures": failures})


def _definitions(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@dataclass(frozen=True)
class Program:
    """A process that waits to run the program for one test."""

    pid: int
    ended: int
    """A file descriptor that can be read when the process ends."""
    go: int
    """It begins when this pipe closes."""
    input: int
    asked: int
    output: int
    reply: int

    @staticmethod
    def start(code: CodeType, kind: str) -> "Program":
        """Fork the process."""
        files = [os.memfd_create(name) for name in ("input", "asked", "output", "reply")]
        waits, go = os.pipe()
        supervisor = os.getpid()
        pid = os.fork()
        if pid:
            os.close(waits)
            return Program(pid, os.pidfd_open(pid), go, *files)
        try:
            kill_with_parent(supervisor, signal.SIGKILL)
            _arrange(files, waits)
            limit_resources(TEST_SECONDS + 1)  # where the supervisor did not end it before
            confine()
            os.read(_WAITS, 1)
            os.close(_WAITS)
            run_program(code, kind)
        finally:
            os._exit(1)

    def run(self, seconds: float) -> str:
        """Let it run until it ends or is killed; return how it ended, or "" if by itself."""
        os.close(self.go)
        with_time = bool(select.select([self.ended], [], [], seconds)[0])
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if not with_time or status == -signal.SIGXCPU:
            return f"it took more than {TEST_SECONDS} s"
        return f"its process died ({signal.Signals(-status).name})" if status < 0 else ""


def _arrange(files: Sequence[int], waits: int) -> None:
    """Put the files to the descriptors where a program expects them, and close all others."""
    places = (0, _ASKED, 1, _REPLY, _WAITS, 2)
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 16) for number in (*files, waits, os.open(os.devnull, os.O_WRONLY))]
    for place, number in zip(places, moved, strict=True):
        os.dup2(number, place)
    os.closerange(len(places), 1 << 20)


def run_program(code: CodeType, kind: str) -> None:
    """Run the program and then the calls of its test, write the reply, and end this process."""
    try:
        module = ModuleType("__main__" if kind == "input" else "answer")
        sys.modules[module.__name__] = module
        with suppress(*([SystemExit] if kind == "input" else [])):
            exec(code, module.__dict__)
        reply: dict[str, Any] = {"values": [] if kind == "input" else _asked(module.__dict__)}
    except BaseException as error:  # also SystemExit: whatever the program raises is its failure
        reply = {"error": _named(error)}
    with suppress(Exception):  # it may have closed or replaced its output
        sys.stdout.flush()
    os.write(_REPLY, json.dumps(reply).encode())
    os._exit(0)


def _asked(names: dict[str, Any]) -> list[Any]:
    """Compute what the supervisor asks for: calls, or a whole test and then its token."""
    asked = json.loads(os.pread(_ASKED, 1 << 24, 0))
    exec(asked["setup"], names)
    if "token" in asked:
        exec(asked["test"], names)
        return [asked["token"]]
    return [to_plain(eval(call, names)) for call in asked["calls"]]


class Judge:
    """Compares what programs reply with what the tests expect."""

    def __init__(self, setup: str, defined: set[str]) -> None:
        self.setup, self.defined = setup, defined
        self.names: dict[str, Any] = {"math": math, **_imported(setup)}

    def failure(self, program: Program, test: Any, deadline: float) -> str:
        """Run a program on its test, and describe what fails; "" if nothing does."""
        seconds = min(TEST_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            return "no time was left for it"
        if isinstance(test, dict):
            return self._failure_of_output(program, test, seconds)
        try:
            split = split_assert(test, self.names, self.defined)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            return f"the test can't be read: {_named(error)}"
        token = os.urandom(16).hex()
        asked = {"calls": split.calls} if split else {"test": test, "token": token}
        os.write(program.asked, json.dumps(asked | {"setup": self.setup}).encode())
        problem = program.run(seconds)
        values, raised = _reply(program)
        if problem or raised or values is None:
            return problem or raised or _NO_REPLY
        if split is None:
            return "" if values == [token] else _NO_REPLY
        return self._failure_of_values(split, values)

    def _failure_of_output(self, program: Program, test: dict[str, str], seconds: float) -> str:
        """Compare what the program prints, except for spaces at the ends of lines."""
        os.write(program.input, test["input"].encode())
        os.lseek(program.input, 0, os.SEEK_SET)
        problem = program.run(seconds)
        _, raised = _reply(program)
        printed = os.pread(program.output, FILE_BYTES, 0).decode(errors="replace")
        if problem or raised:
            return problem or raised
        return "" if _lines(printed) == _lines(test["output"]) else f"it printed {_shown(printed.strip())}"

    def _failure_of_values(self, split: SplitAssert, found: list[Any]) -> str:
        """Check the comparison of an assert for the values that the program sent."""
        signal.signal(signal.SIGALRM, _raise_time_out)
        signal.setitimer(signal.ITIMER_REAL, _COMPARING_SECONDS)  # a value may make the comparison endless
        try:
            values = [from_plain(each) for each in found]
            gave = f"{split.calls[0]} gave {_shown(values[0])}"
            exec(compile(split.comparison, "test", "exec"), self.names | {f"_{i}": each for i, each in enumerate(values)})
        except AssertionError:
            return gave
        except Exception as error:
            return f"comparing raised {_named(error)}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return ""


def _raise_time_out(*_: object) -> None:
    raise TimeoutError


def _imported(setup: str) -> dict[str, Any]:
    """Return what the imports of the setup bring, for the comparisons; the program's process runs all of it."""
    found: dict[str, Any] = {}
    with suppress(Exception):
        for node in ast.parse(setup).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                with suppress(ImportError):
                    exec(compile(ast.Module([node], []), "setup", "exec"), found)
    return found


def _reply(program: Program) -> tuple[list[Any] | None, str]:
    """Read the values or the error that a dead program left; untrusted."""
    try:
        reply = json.loads(os.pread(program.reply, FILE_BYTES, 0))
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(reply, dict):
        return None, ""
    values, error = reply.get("values"), reply.get("error")
    return values if isinstance(values, list) else None, error if isinstance(error, str) else ""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _shown(value: Any) -> str:
    """Show a value, on one line."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError, MemoryError):
        return f"a {type(value).__name__}"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:_LONGEST_PROBLEM]


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())[:_LONGEST_PROBLEM]


def _read_message() -> Any:
    size = int.from_bytes(_read(8), "big")
    return json.loads(_read(size))


def _read(size: int) -> bytes:
    """Read so many bytes of standard input, and no more: the tests stay in the pipe until the programs are forked."""
    found = b""
    while len(found) < size:
        part = os.read(0, size - len(found))
        if not part:
            sys.exit("the input ended early")
        found += part
    return found


def _write(to: int, found: dict[str, Any]) -> None:
    data = json.dumps(found).encode()
    while data:
        data = data[os.write(to, data) :]
