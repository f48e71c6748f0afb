"""Many clients at once, some of whom leave."""

import asyncio

from served import NEEDS_KERNELS

from experiments.clients import Reply, requests_of, send_all


@NEEDS_KERNELS
def test_no_answer_is_lost_while_clients_leave(client):
    asked = {"max_tokens": (4, 40), "leave": 0.4, "longest_stay": 0.3}
    requests = requests_of([f"What is a lamp, {number}?" for number in range(80)], "mine", seed=1, **asked)
    load = asyncio.run(send_all(str(client.base_url).rstrip("/"), requests, clients=8))
    left = [request.leaves_after is not None for request in requests]
    assert 15 < sum(left) < 50 and sum(reply.left for reply in load.replies) > 0
    assert [reply for reply in load.replies if reply.is_lost] == []
    assert all(reply.finish and reply.tokens > 0 for reply, leaves in zip(load.replies, left, strict=True) if not leaves)
    for request, reply in zip(requests, load.replies, strict=True):
        assert reply.left or (0 < reply.tokens <= request.body["max_tokens"] and reply.first_seconds <= reply.seconds <= load.seconds)


def test_a_refused_request_is_lost(client):
    requests = requests_of(["What is a lamp?"], "other", seed=1, max_tokens=(4, 4), leave=0.0, longest_stay=1.0)
    (reply,) = asyncio.run(send_all(str(client.base_url).rstrip("/"), requests, clients=1)).replies
    assert reply.is_lost and reply.error.startswith("status 404") and "unknown model 'other'" in reply.error


def test_an_answer_without_its_end_is_lost_unless_its_client_left():
    whole = Reply(first_seconds=0.1, seconds=0.2, finish="stop", tokens=3)
    assert not whole.is_lost
    assert Reply(first_seconds=0.1, finish=None, tokens=3).is_lost and Reply(finish="length", tokens=0).is_lost
    assert not Reply(left=True).is_lost
