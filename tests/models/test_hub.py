"""Whether the hub is there, by servers of this machine that answer, wait, or are none."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from etude.errors import UserError
from etude.models import hub
from etude.models.hub import check_available, hub_if_reachable
from etude.models.load import load_model
from etude.tasks.hub import hub_rows, streamed_rows

Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture(autouse=True)
def hub_is_online(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[None]:
    """No proxy and no cache of this machine, and short waits."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(hub, "RESPONSE_SECONDS", 2.0)
    close_session()
    yield
    close_session()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`serve(answer)` is a server at the hub's address; `answer` is given each connection."""
    with closing(socket.socket()) as listening:

        def start(answer: Callable[[socket.socket], None]) -> str:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")

            def run() -> None:
                try:
                    while True:
                        connection, _ = listening.accept()
                        threading.Thread(target=answer, args=(connection,), daemon=True).start()
                except OSError:
                    pass  # closed: the test is over

            threading.Thread(target=run, daemon=True).start()
            return constants.ENDPOINT

        yield start


def answering(status: str, after_seconds: float = 0.0) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            time.sleep(after_seconds)
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    return answer


@pytest.mark.parametrize(
    ("status", "after_seconds"),
    [("200 OK", 0.8), ("307 Moved\r\nLocation: http://127.0.0.1:1/", 0.0), ("403 Forbidden", 0.0), ("503 Busy", 0.0)],
)
def test_a_hub_that_answers_anything_is_there_however_slow_it_is_once_connected(serve, status, after_seconds):
    serve(answering(status, after_seconds))
    with hub_if_reachable() as problem:
        assert problem is None and constants.HF_HUB_OFFLINE is False


def test_a_hub_that_takes_a_connection_and_says_nothing_is_given_up(serve):
    serve(lambda connection: time.sleep(5))
    begun = time.monotonic()
    with hub_if_reachable() as problem:
        assert "can't be reached" in problem and constants.HF_HUB_OFFLINE is True
    assert time.monotonic() - begun < 4 and constants.HF_HUB_OFFLINE is False


def test_a_network_that_swallows_everything_costs_the_time_of_one_connection(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    with hub_if_reachable() as problem:
        assert problem == (
            "https://huggingface.co can't be reached (no connection within 0.5 s; set HF_HUB_ETAG_TIMEOUT to more seconds where the "
            "network is slow)"
        )


def test_a_slow_network_may_be_given_more_time(serve, monkeypatch):
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: time.sleep(0.8) or real(*given, **named))
    serve(answering("200 OK"))
    with hub_if_reachable() as problem:
        assert "no connection within 0.5 s" in problem
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "20")
    with hub_if_reachable() as problem:
        assert problem is None


def test_a_proxy_is_asked_where_there_is_one(serve, monkeypatch):
    asked = []

    def answer(connection: socket.socket) -> None:
        asked.append(connection.recv(65536).split(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.close()

    monkeypatch.setenv("HTTP_PROXY", serve(answer))
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.invalid")
    with hub_if_reachable() as problem:
        assert problem is None and asked == [b"HEAD http://mirror.invalid/ HTTP/1.1"]


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> str:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    return endpoint


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (lambda: load_model("no/model"), r"^model 'no/model' is not in the cache, and {} can't be reached \(.*refused\)"),
        *(
            (lambda rows=rows: list(rows("no/set", name=None, split="test")), "it is not in the cache, and {} can't be .*file with path$")
            for rows in (hub_rows, streamed_rows)
        ),
    ],
    ids=["model", "rows", "streamed rows"],
)
def test_what_is_nowhere_is_one_sentence_at_once(load, said, unreachable, caplog, capfd, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(UserError, match=said.format(unreachable)):
        load()
    assert time.monotonic() - begun < 4 and not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_model_in_the_cache_is_loaded_without_a_hub(unreachable, llama, tokenizer, tmp_path, monkeypatch):
    from etude.models.save import save_model

    commit = "0" * 40
    repository = tmp_path / "hub" / "models--an--owner"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    save_model(llama, tokenizer, repository / "snapshots" / commit)
    loaded, _ = load_model("an/owner")
    assert loaded.lm_head.weight.equal(llama.lm_head.weight)
    (repository / "snapshots" / commit / "config.json").write_text('{"transformers_weights": "evil.bin"}')
    with pytest.raises(UserError, match=r"^model 'an/owner': config.json names 'evil.bin' as transformers_weights"):
        load_model("an/owner")


def test_a_local_data_folder_does_not_ask_the_hub(unreachable, tmp_path, monkeypatch):
    (tmp_path / "test.jsonl").write_text('{"question": "a", "answer": "1"}\n')
    monkeypatch.setattr("etude.tasks.hub.hub_if_reachable", lambda: pytest.fail("the hub is asked"))
    ((origin, row),) = hub_rows(str(tmp_path), name=None, split="test")
    assert row["question"] == "a" and origin.endswith("/test[0]")


def test_lines_of_the_hubs_own_libraries_come_once(capfd, monkeypatch):
    from etude.cli import _set_logging

    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    _set_logging(is_quiet=False, is_verbose=False)
    assert not logging.getLogger("huggingface_hub").propagate and not logging.getLogger("datasets").propagate


def test_a_command_reports_a_wrong_name_before_slow_imports(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    commands = ["practice tiny --model nosuch/model", "generate nosuch/model --prompt a", "evaluate nosuch/model"]
    code = f"import sys; from etude.cli import main; print([main(line.split()) for line in {commands}], 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "[2, 2, 2] False\n", found.stderr
    assert (
        found.stderr.count("\n") == found.stderr.count("etude: model 'nosuch/model' is not in the cache, and http://127.0.0.1:9 can't") == 3
    )


def test_cached_and_local_models_do_not_ask_the_hub(unreachable, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--some--model").mkdir()
    (tmp_path / "mine" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("some/model", "mine/model", "smollm2-135m", "./nosuch/model", "nosuch/model.gguf"):
        check_available(name)
    with pytest.raises(UserError, match=r"^dataset 'nosuch/rows' is not in the cache, and .*: load it once .*tasks\.path"):
        check_available("some/model", "nosuch/rows")
