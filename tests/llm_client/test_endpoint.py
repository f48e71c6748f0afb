"""A server that is asked over HTTP, and everything that it may do instead of answering."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from etude.errors import UserError
from etude.llm_client.endpoint import Endpoint
from etude.llm_client.model import Reply
from etude.rewards.judge import Judging


def question(text):
    return ({"role": "user", "content": text},)


def endpoint_of(server, **settings):
    return Endpoint(Judging(model="x", url=server.url, **settings))


def asked(body):
    return body["messages"][-1]["content"]


def test_replies_come_in_the_order_of_the_questions_some_at_once(judge_server):
    running, most, lock = [0], [0], threading.Lock()

    def answer(body):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02 if asked(body) in "024" else 0.05)
        with lock:
            running[0] -= 1
        return f"to {asked(body)}"

    server = judge_server(answer)
    replies = endpoint_of(server, concurrency=3).ask([question(str(i)) for i in range(8)])
    assert [reply.text for reply in replies] == [f"to {i}" for i in range(8)]
    assert 2 <= most[0] <= 3 and endpoint_of(server).ask([]) == []


def test_the_request_has_the_settings(judge_server):
    server = judge_server(lambda body: "yes")
    extra = {"max_tokens": None, "max_completion_tokens": 7}
    endpoint_of(server, temperature=0.5, extra_body=extra).ask([question("?")])
    expected = {"model": "x", "temperature": 0.5, "max_completion_tokens": 7, "messages": [{"role": "user", "content": "?"}]}
    assert server.asked == [expected] and "Authorization" not in server.headers[0]


def test_busy_and_broken_servers_are_asked_again_after_as_long_as_they_say(judge_server):
    told = iter([(429, "slow down", {"Retry-After": "1"}), (503, "starting", {}), "yes"])
    server, start = judge_server(lambda body: next(told)), time.monotonic()
    (reply,) = endpoint_of(server).ask([question("?")])
    assert (reply.text, reply.retries, len(server.asked)) == ("yes", 2, 3) and time.monotonic() - start >= 1


def test_a_problem_of_one_request_costs_only_its_reply(judge_server):
    def answer(body):
        match asked(body):
            case "slow":
                time.sleep(1)
            case "refused":
                return 400, "too long", {}
            case "crashed":
                return 500, "oh", {}
            case "no JSON":
                return 200, "<html>", {}
            case "other JSON":
                return 200, json.dumps({"choices": []}), {}
            case "no text":
                return None
        return "yes"

    names = ["slow", "refused", "crashed", "no JSON", "other JSON", "no text", "well"]
    server = judge_server(answer)
    replies = dict(zip(names, endpoint_of(server, timeout_seconds=0.3, retries=2).ask([question(name) for name in names]), strict=True))
    assert replies["well"].text == "yes" and [name for name in names if replies[name].text is None] == names[:-1]
    assert "no reply within 0.3 s" in replies["slow"].problem and "status 400: too long" in replies["refused"].problem
    assert "no chat completion" in replies["no JSON"].problem and "no chat completion" in replies["other JSON"].problem
    assert "without text" in replies["no text"].problem
    assert {name: reply.retries for name, reply in replies.items() if reply.retries} == {"crashed": 2}
    assert sum(asked(body) == "crashed" for body in server.asked) == 3


DRIPS = {
    "headers": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "refusal": (b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\n", b" "),
    "going on": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000),
    "silence": (b"", b""),
}
"""What a server sends at first, and what every 0.05 s."""


@pytest.mark.parametrize("name", DRIPS)
def test_a_server_that_drips_ends_with_its_time(name):
    first, again = DRIPS[name]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                with suppress(OSError):
                    connection.sendall(first)
                    for _ in range(80):
                        connection.sendall(again)
                        time.sleep(0.05)

        threading.Thread(target=serve, daemon=True).start()
        how = Judging(model="x", url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_seconds=0.3, retries=0)
        start = time.monotonic()
        (reply,) = Endpoint(how).ask([question("?")])
        assert time.monotonic() - start < 2
        assert "no reply within 0.3 s" in reply.problem or "status 500" in reply.problem


def test_a_server_that_reads_no_request_ends_with_its_time():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        how = Judging(model="x", url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_seconds=0.3, retries=0)
        start = time.monotonic()
        (reply,) = Endpoint(how).ask([question("x" * 20_000_000)])
        assert "no reply within 0.3 s" in reply.problem and time.monotonic() - start < 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_an_encrypted_reply_comes_whole_or_ends_with_its_time(tmp_path, monkeypatch):
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            for is_whole in (True, False):
                with context.wrap_socket(listening.accept()[0], server_side=True) as connection:
                    while not connection.recv(65536).endswith(b"}"):
                        pass
                    body = json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()
                    with suppress(OSError):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + (body if is_whole else b""))
                        for _ in range(0 if is_whole else 40):
                            connection.sendall(b" ")
                            time.sleep(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"https://localhost:{listening.getsockname()[1]}"
        endpoint = Endpoint(Judging(model="x", url=url, timeout_seconds=0.5, retries=0))
        replies = [endpoint.ask([question("?")])[0] for _ in range(2)]
        thread.join()
    assert [reply.text for reply in replies] == ["yes", None] and "no reply within 0.5 s" in replies[1].problem


def test_an_unreachable_server_raises_if_no_request_was_answered(judge_server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    judge_server(lambda body: "")  # for its patches
    gone = Endpoint(Judging(model="x", url=url, retries=1))
    with pytest.raises(UserError, match=r"judge.url http://127.0.0.1:\d+/v1 can't be used as a judge \(no connection.*--resume"):
        gone.ask([question("a"), question("b")])
    with pytest.raises(UserError, match="no connection"):
        gone.check()


@pytest.mark.parametrize(("status", "is_outage"), [(401, True), (404, True), (429, True), (400, False), (500, False)])
def test_only_a_problem_of_all_requests_raises(judge_server, status, is_outage):
    endpoint = endpoint_of(judge_server(lambda body: (status, "no", {})), retries=0)
    if is_outage:
        with pytest.raises(UserError, match=f"status {status}: no"):
            endpoint.ask([question("a"), question("b")])
    else:
        assert [reply.text for reply in endpoint.ask([question("a")])] == [None]
    some = endpoint_of(judge_server(lambda body: "yes" if asked(body) == "a" else (status, "no", {})), retries=0)
    assert [reply.text for reply in some.ask([question("a"), question("b")])] == ["yes", None]


@pytest.mark.parametrize(("answer", "is_fine"), [("ready", True), ((429, "busy", {}), True), ((404, "no model x", {}), False)])
def test_a_check_tells_a_server_that_can_be_used(judge_server, answer, is_fine):
    endpoint = endpoint_of(judge_server(lambda body: answer))
    if is_fine:
        endpoint.check()
    else:
        with pytest.raises(UserError, match="status 404: no model x"):
            endpoint.check()


def test_the_api_key_is_sent_to_the_server_alone_and_never_shown(judge_server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-123\n")
    elsewhere = judge_server(lambda body: "yes")
    server = judge_server(lambda body: (401, "wrong key secret-123", {}))
    with pytest.raises(UserError, match=r"wrong key \[key\]") as caught:
        endpoint_of(server, api_key_env="MY_KEY").check()
    assert "secret" not in str(caught.value) and server.headers[0]["Authorization"] == "Bearer secret-123"
    moved = judge_server(lambda body: (307, "", {"Location": f"{elsewhere.url}/chat/completions"}))
    with pytest.raises(UserError, match="status 307"):
        endpoint_of(moved, api_key_env="MY_KEY").check()
    assert not elsewhere.asked
    server.answer = lambda body: "You sent secret-123.\nScore: 3"
    assert endpoint_of(server, api_key_env="MY_KEY").ask([question("?")]) == [Reply("You sent [key].\nScore: 3")]


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_shortened_server_message_holds_no_part_of_the_key(judge_server, monkeypatch, status):
    monkeypatch.setenv("MY_KEY", "secret-0123456789")
    server = judge_server(lambda body: (status, "", {}))
    endpoint = endpoint_of(server, api_key_env="MY_KEY", retries=0)
    for before in (*range(60, 82), *range(275, 300), *range(1985, 2000)):
        server.answer = lambda body, before=before: (status, "x" * before + "secret-0123456789", {})
        with pytest.raises(UserError) as checked:
            endpoint.check()
        assert "xxx" in str(checked.value) and "secr" not in str(checked.value)
        if status != 401:
            (reply,) = endpoint.ask([question("?")])
            assert reply.text is None and "xxx" in reply.problem and "secr" not in reply.problem


def test_a_key_is_sent_through_no_proxy_that_could_read_it(judge_server, monkeypatch):
    proxy, server = judge_server(lambda body: "yes"), judge_server(lambda body: "yes")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("MY_KEY", "secret-123")
    endpoint_of(server, api_key_env="MY_KEY").check()
    assert len(server.asked) == 1 and not proxy.asked
    with pytest.raises(UserError, match="no such path"):  # a proxy is asked for whole addresses
        endpoint_of(server).check()
    assert len(server.asked) == 1


def test_a_reply_says_whether_it_was_cut_off_and_can_be_written_to_a_file(judge_server):
    def answer(body):
        choice = {"message": {"content": "Score: 1"}} | ({} if asked(body) == "?" else {"finish_reason": asked(body)})
        return 200, json.dumps({"choices": [choice]}), {}

    replies = endpoint_of(judge_server(answer)).ask([question(finish) for finish in ("length", "stop", "?")])
    assert [reply.is_cut_off for reply in replies] == [True, False, False]
    half = '{"choices": [{"message": {"content": "it pumps \\ud83d far"}}]}'
    (reply,) = endpoint_of(judge_server(lambda _: (200, half, {}))).ask([question("?")])
    assert reply.text == "it pumps ? far" and reply.text.encode(), "half a character is one that a file can hold"


@pytest.mark.parametrize("status", [403, 405, 503])
def test_a_text_that_alone_is_refused_is_without_a_reply_and_ends_nothing(judge_server, status):
    server = judge_server(lambda body: (status, "not this text", {}) if asked(body) == "bad" else "ready")
    (reply,) = endpoint_of(server, retries=0).ask([question("bad")])
    assert reply == Reply(None, f"the judge did not answer: status {status}: not this text")
    assert len(server.asked) == 2  # the text, and whether anything is answered
    server.answer = lambda body: (status, "nobody", {})
    with pytest.raises(UserError, match=f"status {status}: nobody"):
        endpoint_of(server, retries=0).ask([question("bad")])
    server.answer = lambda body: "ready" if "ready" in asked(body) else (429, "slow down", {})
    with pytest.raises(UserError, match="status 429: slow down"):  # too many requests end a call even if one more were answered
        endpoint_of(server, retries=0).ask([question("a"), question("b")])


def test_a_key_that_is_not_there_is_a_mistake(monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(UserError, match="environment variable NO_KEY is not set"):
        Endpoint(Judging(model="x", url="http://localhost", api_key_env="NO_KEY"))
    monkeypatch.setenv("NO_KEY", "two words")
    with pytest.raises(UserError, match="NO_KEY holds no API key") as caught:
        Endpoint(Judging(model="x", url="http://localhost", api_key_env="NO_KEY"))
    assert "two words" not in str(caught.value)


def test_a_process_that_is_interrupted_waits_for_no_reply(judge_server):
    server = judge_server(lambda body: time.sleep(30) or "late")
    script = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell takes away from what it starts behind
        "from etude.llm_client.endpoint import Endpoint\n"
        "from etude.rewards.judge import Judging\n"
        f"Endpoint(Judging(model='x', url={server.url!r})).ask([({{'role': 'user', 'content': '?'}},)] * 3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=dict(os.environ)) as process:
        while len(server.asked) < 3 and process.poll() is None:
            time.sleep(0.01)
        start = time.monotonic()
        process.send_signal(2)
        process.wait(10)
    assert time.monotonic() - start < 5
