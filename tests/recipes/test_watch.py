"""The page of a run while it is written: what it shows at each state, that it follows the files by events, and that it only reads."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from browser import NEEDS_BROWSER, Browser, Page

from etude.cli import main
from etude.errors import UserError
from etude.evaluation.report import live
from etude.evaluation.report.live import LivePage
from etude.recipes import watch
from etude.recipes.watch_settings import WatchSettings
from etude.serve.listening import address_of, listen
from etude.training.run_folder import RunFolder

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> & 'quoted'"
CONFIGURATION = {"adaptation": None, "warm_start": {"steps": 0}, "preferences": {"steps": 0}, "steps": 5}
SUITE = {
    "suite": "sums",
    "row": {"accuracy": 0.5, "n": 2},
    "items": [{"task": "a", "question": "1 + 1?", "answer": "2", "text": "2", "score": 1}],
}


class Growing:
    """A run that writes its folder as practice does, when a test says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self, *, resume: bool = False) -> None:
        self.folder = RunFolder.start(self.path, CONFIGURATION, resume=resume)
        self.folder.begin(CONFIGURATION)

    def measure(self, model: str) -> None:
        self.folder.write_json(f"evaluation/{model}.json", {"model": model, "suites": [SUITE]})

    def step(self, step: int, text: str = "I say it") -> None:
        rows = [self.attempt(step, task, f"{text} {step}.{task}.{index}") for task in range(4) for index in range(2)]
        self.folder.write_attempts(step, rows)
        self.folder.append("metrics.jsonl", {"phase": "practice", "step": step, "score": step / 10})
        self.folder.append("timings.jsonl", {"phase": "practice", "step": step, "learn_seconds": 2.0})

    @staticmethod
    def attempt(step: int, task: int, text: str) -> dict[str, Any]:
        named = {"task": f"t{task}", "question": f"What is {task}?", "answer": "2", "index": 0}
        return {**named, "step": step, "text": text, "score": 1.0, "tokens": 4, "advantage": 0.0, "finish": "stop"}

    def finish(self) -> None:
        self.measure("practice")
        self.folder.write_json("result.json", {"status": "finished", "recipe": "sums", "seed": 0, "evaluation": []})
        self.folder.release()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Growing]:
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(live, "_REST", 0)
    growing = Growing(tmp_path / "sums")
    yield growing
    growing.folder.release()


@contextmanager
def watching(path: Path, port: int = 0) -> Iterator[str]:
    """Serve the page of a run in a thread; yields its address."""
    server, listener = watch.server_of(path, "127.0.0.1"), listen("127.0.0.1", port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield address_of(listener) + "/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def address(run: Growing) -> Iterator[str]:
    with watching(run.path) as found:
        yield found


def page_at(address: str) -> str:
    reply = requests.get(address, timeout=20)
    assert reply.status_code == 200
    return reply.text


@contextmanager
def events_at(address: str) -> Iterator[Callable[[], Mapping[str, Any]]]:
    """`next_event()` waits for the next event and returns its data."""
    with requests.get(f"{address}events", stream=True, timeout=20) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = reply.iter_lines()

        def next_event() -> Mapping[str, Any]:
            return json.loads(next(line for line in lines if line.startswith(b"data: "))[6:])

        yield next_event


# ------------------------------------------------------------------ what the page shows, and when


def test_an_event_follows_a_step_and_the_page_shows_it(run: Growing, address: str) -> None:
    run.step(1)
    with events_at(address) as next_event, events_at(address) as another:
        first = next_event()
        page = page_at(address)
        assert "step 1 of 5" in page and f'data-version="{first["version"]}"' in page and "I say it 1.0.0" in page
        run.step(2)
        second = next_event()
        while f'data-version="{second["version"]}"' not in (page := page_at(address)):  # a step is more than one file
            second = next_event()
        assert "step 2 of 5" in page and "I say it 2.0.0" in page and second["version"] != first["version"]
        assert another()["version"] == first["version"] and another()["version"] != first["version"]


def test_a_run_before_its_first_step_is_waited_for(run: Growing, address: str) -> None:
    page = page_at(address)
    assert "Waiting for the first step" in page and "measuring the base model" in page
    assert "missing" not in page and "not finished" not in page  # files that are still to come are no fault
    run.measure("base")
    assert ">practice</span>" in page_at(address) and "50.0" in page_at(address)


def test_a_half_written_line_is_waited_for(run: Growing, address: str) -> None:
    run.step(1)
    line = json.dumps({"phase": "practice", "step": 2, "score": 0.2})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(line[:20])
        file.flush()
        page = page_at(address)
        assert "step 1 of 5" in page and "unreadable" not in page
        file.write(line[20:] + "\n")
    assert "step 2 of 5" in page_at(address)


def test_a_finished_run_says_so_and_stays(run: Growing, address: str) -> None:
    for step in (1, 2, 3):
        run.step(step)
    with events_at(address) as next_event:
        next_event()
        run.finish()
        next_event()
        page = page_at(address)
        while ">Finished</strong>" not in page:
            next_event()
            page = page_at(address)
    assert "step 3 of 5" in page and page == page_at(address)


def test_a_stopped_run_says_how_it_goes_on_and_a_resumed_one_runs(run: Growing, address: str) -> None:
    run.step(1)
    assert ">Running</strong>" in page_at(address)
    run.folder.release()  # as when the process ends in any way
    page = page_at(address)
    assert ">Stopped</strong>" in page and "--resume goes on from the last checkpoint" in page
    assert "result.json is missing" in page  # now it is a fault
    run.start(resume=True)
    assert ">Running</strong>" in page_at(address) and "--resume" not in page_at(address)


def test_the_last_steps_attempts_come_first_and_whole(run: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_LIVE_ATTEMPTS", 20)  # a step has 8
    for step in (1, 2, 3):
        run.step(step)
    _, page = LivePage(run.path).look()
    (shown,) = json.loads(page.split('data-part="attempts-data">')[1].split("</script>")[0])
    assert [attempt["step"] for attempt in shown["attempts"]] == 8 * [3] + 8 * [2] and shown["total"] is None


def test_practice_with_an_adaptation_shows_both(run: Growing) -> None:
    (run.path / "knowledge").mkdir()
    (run.path / "knowledge" / "configuration.yaml").write_text("study:\n  order: knowledge_only\n  tokens: 100\n")
    (run.path / "knowledge" / "metrics.jsonl").write_text(json.dumps({"phase": "text", "step": 1, "tokens": 40}) + "\n")
    _, page = LivePage(run.path).look()
    assert "knowledge: training on text, 40 of 100 tokens" in page and 'data-runs="2"' in page


# ------------------------------------------------------------------ what it leaves alone, and what it refuses


def test_what_a_model_wrote_is_text(run: Growing, address: str) -> None:
    run.step(1, HOSTILE)
    page = page_at(address)
    assert "<script>alert" not in page and "<img" not in page and "\\u003cscript\\u003ealert(1)" in page
    policy = page.split('Content-Security-Policy" content="')[1].split('">')[0]
    assert policy.startswith("default-src 'none'; ") and "connect-src 'self'" in policy and "script-src 'sha256-" in policy
    assert not any(scheme in page.replace("http://www.w3.org/2000/svg", "") for scheme in ("http://", "https://", 'src="', "url("))


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:99", 200), ("[::1]:99", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400)],
)
def test_other_names_of_this_machine_are_refused(address: str, host: str, status: int) -> None:
    for path in ("", "events"):
        with requests.get(address + path, headers={"Host": host}, stream=True, timeout=20) as reply:
            assert reply.status_code == status


def test_only_the_page_and_its_events_can_be_got(address: str) -> None:
    assert [requests.request(method, address, timeout=20).status_code for method in ("POST", "PUT", "DELETE")] == [405] * 3
    assert requests.get(f"{address}../configuration.yaml", timeout=20).status_code == 404
    assert requests.get(address, timeout=20).headers["cache-control"] == "no-store"


def test_watching_changes_nothing_keeps_nothing_open_and_locks_nobody_out(run: Growing) -> None:
    run.step(1)
    run.folder.release()

    def state() -> list[tuple[Path, int, int]]:
        return sorted((path, path.stat().st_mtime_ns, path.stat().st_size) for path in run.path.rglob("*"))

    before, page = state(), LivePage(run.path)
    for _ in range(3):
        page.look()
        page._shown = None
    opened = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert state() == before and not [path for path in opened if path.startswith(str(run.path))]
    run.start(resume=True)


def test_files_are_read_at_most_a_tenth_of_the_time(run: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading of 2 s is followed by 18 s in which the page stays as it is."""
    now = [100.0]
    monkeypatch.undo()
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    page = LivePage(run.path)
    read = page._read
    monkeypatch.setattr(page, "_read", lambda version: (now.__setitem__(0, now[0] + 2), read(version))[1])
    first = page.look()
    run.step(1)
    now[0] += 17.9
    assert page.look() == first
    now[0] += 0.2
    assert page.look()[0] != first[0]


def test_a_folder_that_is_gone_is_shown_as_it_is(run: Growing, address: str) -> None:
    run.path.rename(run.path.with_name("elsewhere"))
    assert "No step has been logged yet" in page_at(address)


def test_wrong_folders_ports_and_hosts_are_one_sentence(tmp_path: Path, run: Growing, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(["watch", *words]) == 2
        return capsys.readouterr().err

    assert "does not exist: name the folder of a run" in said(str(tmp_path / "nowhere"))
    assert "holds no run, since it has none of configuration.yaml" in said(str(tmp_path))
    assert "watch needs the folder of a run" in said("--port", "1")
    assert "watch shows one run" in said("a", "b")
    assert "port must be at least 0" in said(str(run.path), "--port", "-1") and "ports are 0 to 65535" in said(
        str(run.path), "--port", "70000"
    )
    with closing(listen("127.0.0.1", 0)) as taken:
        assert "Address already in use: choose another --port" in said(str(run.path), "--port", str(taken.getsockname()[1]))
    with pytest.raises(UserError, match="is every address of this machine"):
        WatchSettings(host="0.0.0.0")


def test_the_command_says_its_address_and_a_signal_ends_it_with_a_page_open(run: Growing) -> None:
    command = [sys.executable, "-m", "etude", "watch", str(run.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            address, _, shown = process.stdout.readline().strip().partition(" shows ")
            assert shown == str(run.path)
            with events_at(address) as next_event:
                next_event()
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=20) == 143
            assert process.stderr.read() == "etude: stopped by SIGTERM\n"
        finally:
            process.kill()


# ------------------------------------------------------------------ in a browser


@pytest.fixture
def shown(run: Growing, tmp_path: Path) -> Iterator[tuple[Page, Growing]]:
    """The page of a run of two steps in a browser, which would tell a reload by its mark."""
    run.measure("base")
    run.step(1)
    run.step(2)
    with watching(run.path) as address, Browser(tmp_path / "profile") as browser:
        page = browser.page(address)
        page.evaluate("window.mark = 'as loaded'")
        yield page, run


STRIP = "document.querySelector('.live').textContent"
TIP = "document.querySelector('.tip:not([hidden])')?.innerText"


@pytest.mark.browser
@NEEDS_BROWSER
def test_browser_shows_new_steps_without_a_reload_and_keeps_what_is_read(shown: tuple[Page, Growing]) -> None:
    page, run = shown
    chart = "[data-part='Practice: Mean reward'] > svg"
    page.evaluate("document.querySelector('#conditions details').open = true")
    page.point_at(chart, across=0.98)
    assert page.evaluate(TIP) == "step 2\nmean reward: 0.2"
    title, place = page.evaluate("document.title"), page.evaluate("scrollY")
    run.step(3)
    page.wait(f"{STRIP}.includes('step 3 of 5')")
    label = page.evaluate(f"document.querySelector({json.dumps(chart)}).getAttribute('aria-label')")
    assert label.endswith("mean reward: 0.1 at step 1, 0.3 at step 3.")
    assert page.evaluate(TIP) == "step 2\nmean reward: 0.2"  # the step that was pointed at
    assert page.evaluate("[mark, document.querySelector('#conditions details').open]") == ["as loaded", True]
    assert page.evaluate("scrollY") == place > 0 and page.evaluate("document.title") != title
    page.point_at(chart, across=0.98)
    assert page.evaluate(TIP) == "step 3\nmean reward: 0.3"
    run.finish()
    page.wait(f"{STRIP}.includes('Finished')")
    assert page.evaluate("mark") == "as loaded"


@pytest.mark.browser
@NEEDS_BROWSER
def test_browser_keeps_the_attempt_that_is_read_where_it_is(shown: tuple[Page, Growing]) -> None:
    page, run = shown
    read = "[...document.querySelectorAll('.group')].find((group) => group.textContent.includes('I say it 1.3.'))"
    page.evaluate(f"window.read = {read}; read.scrollIntoView({{behavior: 'instant', block: 'center'}})")
    before = page.evaluate("read.getBoundingClientRect().top")
    for step in (3, 4):
        run.step(step)
    page.wait("document.querySelector('#attempts-list').textContent.includes('I say it 4.0.')")
    assert page.evaluate("document.querySelector('.group').textContent.includes('step 4')")  # the newest is first
    assert page.evaluate("read.isConnected && Math.round(read.getBoundingClientRect().top)") == round(before)
    assert page.evaluate("document.querySelectorAll('.group').length") == 16  # as many as it takes, more than ten


@pytest.mark.browser
@NEEDS_BROWSER
def test_browser_keeps_the_filter_and_shows_hostile_attempts_as_text(shown: tuple[Page, Growing]) -> None:
    page, run = shown
    page.evaluate("const box = document.querySelector('#attempts-text'); box.value = 'alert'; box.dispatchEvent(new Event('input'))")
    page.wait("document.querySelectorAll('.group').length == 0")
    run.step(3, HOSTILE)
    page.wait("document.querySelectorAll('.group').length == 4")
    assert (
        HOSTILE in page.evaluate("document.querySelector('#attempts-list .boxed').textContent")
        and page.evaluate("document.images.length") == 0
    )
    assert page.evaluate("document.querySelector('#attempts-text').value") == "alert"


@pytest.mark.browser
@NEEDS_BROWSER
def test_browser_says_that_the_server_is_gone_and_goes_on_when_it_is_back(run: Growing, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        with watching(run.path) as address:
            page = browser.page(address)
            page.evaluate("window.mark = 'as loaded'")
        page.wait("document.querySelector('.trouble').textContent.startsWith('No connection')")
        run.step(1)
        with watching(run.path, port=int(address.rstrip("/").rpartition(":")[2])):
            page.wait(f"{STRIP}.includes('step 1 of 5') && document.querySelector('.trouble').hidden")
        assert page.evaluate("mark") == "as loaded"
