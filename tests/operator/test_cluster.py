"""The client of the API server: what it asks for, and what it makes of every answer."""

import asyncio
import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stageline_operator.cache import slim
from stageline_operator.cluster import (
    AlreadyExists,
    Busy,
    Change,
    Conflict,
    Expired,
    Gone,
    KubeCluster,
    Refused,
)
from stageline_operator.connection import NoConnectionError, configuration
from stageline_operator.kinds import CONFIG_MAP, POD
from stageline_operator.settings import Connection

MAP = {"apiVersion": "v1", "kind": "ConfigMap",
       "metadata": {"name": "a", "namespace": "n"}, "data": {}}  # fmt: skip


class Canned(BaseHTTPRequestHandler):
    """Answers every request with what the test has laid out, and remembers it."""

    protocol_version = "HTTP/1.1"

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, self.headers, body))
        status, headers, said = self.server.answers[
            min(len(self.server.asked), len(self.server.answers)) - 1
        ]
        if status == 0:
            self.close_connection = True
            return
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Canned) as server:
        server.asked, server.answers = [], [(200, {}, MAP)]
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
async def cluster(server):
    counted = []
    cluster = KubeCluster(
        await configuration(Connection(server=server.url)), lambda *told: counted.append(told)
    )
    cluster.counted = counted
    yield cluster
    await cluster.close()


def refusal(reason, message="a sentence"):
    return {"kind": "Status", "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("status", "headers", "said", "error", "sentence"),
    [
        (404, {}, refusal("NotFound"), Gone, "a sentence"),
        (409, {}, refusal("Conflict"), Conflict, "a sentence"),
        (409, {}, refusal("AlreadyExists"), AlreadyExists, "a sentence"),
        (403, {}, refusal("Forbidden", "exceeded quota"), Refused, "exceeded quota"),
        (422, {}, refusal("Invalid"), Refused, "a sentence"),
        (413, {}, b"too large", Refused, "HTTP 413: too large"),
        (401, {}, refusal("Unauthorized"), Busy, "a sentence"),
        (429, {"Retry-After": "7"}, refusal("TooManyRequests"), Busy, "a sentence"),
        (500, {}, refusal("InternalError"), Busy, "a sentence"),
        (
            500,
            {},
            refusal("InternalError", 'Internal error occurred: failed calling webhook "x.io"'),
            Refused,
            'failed calling webhook "x.io"',
        ),
        (503, {}, b"<html>no backend</html>", Busy, "no backend"),
        (504, {}, b"[1]", Busy, "HTTP 504"),
        (200, {}, b"", Busy, "no answer from the API server"),
        (200, {}, b'{"kind": "Con', Busy, "no answer from the API server"),
    ],
)
async def test_every_failure_has_a_name_and_says_what_the_server_said(
    server, cluster, status, headers, said, error, sentence
):
    server.answers = [(status, headers, said)]
    with pytest.raises(error, match=sentence) as raised:
        await cluster.create(MAP)
    assert type(raised.value) is error
    assert getattr(raised.value, "retry_after", None) == (7.0 if "Retry-After" in headers else None)
    assert cluster.counted == [("POST", "configmaps", status)]
    assert len(server.asked) == 1, "trying again is the queue's work"


async def test_no_answer_at_all_is_busy(server, cluster):
    server.answers = [(0, {}, b"")]
    with pytest.raises(Busy, match="no answer from the API server"):
        await cluster.create(MAP)
    assert cluster.counted == [("POST", "configmaps", 0)]


async def _followed(cluster):
    return [change async for change in cluster.follow(CONFIG_MAP, "n", 7, "a=b")]


async def test_a_watch_tells_line_by_line_from_a_version_on(server, cluster):
    told = [{"type": "ADDED", "object": MAP}, {"type": "BOOKMARK", "object": {**MAP, "data": "ü"}}]
    server.answers = [(200, {}, b"\n".join(json.dumps(one).encode() for one in told) + b"\n")]
    assert await _followed(cluster) == [Change("ADDED", MAP), Change("BOOKMARK", told[1]["object"])]
    verb, path, _, _ = server.asked[0]
    assert (verb, path) == (
        "GET",
        "/api/v1/namespaces/n/configmaps?watch=true&allowWatchBookmarks=true&resourceVersion=7"
        "&labelSelector=a%3Db",
    )
    assert cluster.counted == [], "a watch is no request: it lasts"


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (200, {"type": "ERROR", "object": {"code": 410, "message": "too old"}}, Expired),
        (200, {"type": "ERROR", "object": {"code": 500, "message": "too old"}}, Busy),
        (410, refusal("Expired", "too old"), Expired),
        (403, refusal("Forbidden", "too old"), Refused),
        (429, refusal("TooManyRequests", "too old"), Busy),
        (0, {}, Busy),
    ],
)
async def test_a_watch_fails_by_the_same_names(server, cluster, status, said, error):
    server.answers = [(status, {}, json.dumps(said).encode() + b"\n")]
    with pytest.raises(error, match="too old" if status else "no answer") as raised:
        await _followed(cluster)
    assert type(raised.value) is error


async def test_making_posts_and_leaves_the_callers_object_alone(server, cluster):
    before = copy.deepcopy(MAP)
    await cluster.create(MAP)
    ((method, path, _, body),) = server.asked
    assert (method, path) == ("POST", "/api/v1/namespaces/n/configmaps?fieldManager=stageline")
    assert json.loads(body) == MAP == before


async def test_a_revision_is_made_by_an_apply_to_a_version_that_nobody_has(server, cluster):
    revision = {**MAP, "apiVersion": "apps/v1", "kind": "ControllerRevision"}
    server.answers = [(200, {}, revision), (409, {}, refusal("Conflict", "has been modified"))]
    await cluster.create(revision)
    with pytest.raises(AlreadyExists):
        await cluster.create(revision)
    (method, path, headers, body), _ = server.asked
    assert method == "PATCH"
    assert path.endswith("/controllerrevisions/a?fieldManager=stageline&force=false")
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert json.loads(body)["metadata"] == {**MAP["metadata"], "resourceVersion": "1"}


async def test_restoring_names_the_object_that_was_seen_and_forces(server, cluster):
    await cluster.restore(MAP, {"metadata": {"uid": "u-1"}})
    ((method, path, headers, body),) = server.asked
    assert method == "PATCH"
    assert path.endswith("/configmaps/a?fieldManager=stageline&force=true")
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert json.loads(body)["metadata"]["uid"] == "u-1"


async def test_what_was_made_by_post_is_taken_over_before_it_is_applied(server, cluster):
    """Or no apply would take out what only the first wish has said."""

    def claim(operation, fields, manager="stageline", **more):
        return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}

    posted = claim("Update", {"f:data": {"f:a": {}, "f:b": {}}}, apiVersion="v1", time="1")
    others = [claim("Update", {"f:c": {}}, "kubectl"),
              claim("Update", {"f:status": {}}, subresource="status")]  # fmt: skip
    metadata = {**MAP["metadata"], "uid": "u-1", "resourceVersion": "7"}
    found = {**MAP, "metadata": {**metadata, "managedFields": [posted, *others]}}
    server.answers = [(200, {}, found)] * 3
    live = slim(found)
    assert "fieldsV1" not in json.dumps(live), "all that is kept of it is that it is so"
    await cluster.restore(MAP, live)
    verbs = [(method, json.loads(body) if body else None) for method, _, _, body in server.asked]
    assert [method for method, _ in verbs] == ["GET", "PATCH", "PATCH"]
    assert verbs[1][1] == {"metadata": {
        "uid": "u-1", "resourceVersion": "7",
        "managedFields": [{**posted, "operation": "Apply"}, *others],
    }}  # fmt: skip
    assert verbs[2][1]["metadata"]["uid"] == "u-1"


async def test_a_delete_names_the_object_and_tells_what_is_left(server, cluster):
    ended = {"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    dying = {"metadata": {**ended["metadata"], "resourceVersion": "7"}}
    gone = {"kind": "Status", "status": "Success"}
    server.answers = [(200, {}, dying), (200, {}, gone), (200, {}, ended)]
    assert await cluster.delete(POD, "n", "p", "u-1", 0) == dying
    assert await cluster.delete(POD, "n", "p", "u-1") is None
    assert await cluster.delete(POD, "n", "p", "u-1") is None, "it ended while it was deleted"
    forced, plain, _ = (json.loads(body) for *_, body in server.asked)
    assert forced["gracePeriodSeconds"] == 0
    assert plain == {"preconditions": {"uid": "u-1"}, "propagationPolicy": "Background"}


async def test_a_status_is_applied_to_the_very_resource_that_was_seen(server, cluster):
    metadata = {"name": "llama", "namespace": "n", "uid": "u-1", "labels": {"a": "b"}}
    await cluster.apply_status({"metadata": metadata}, {"replicas": 1})
    ((_, path, _, body),) = server.asked
    assert path.startswith(
        "/apis/stageline.dev/v1alpha1/namespaces/n/pipelinedeployments/llama/status?"
    )
    said = json.loads(body)
    assert said["metadata"] == {"name": "llama", "uid": "u-1"}
    assert said["status"] == {"replicas": 1}


async def test_a_list_is_read_to_its_end_and_its_items_say_what_they_are(server, cluster):
    def page(*names, more=""):
        return {"metadata": {"resourceVersion": "9", "continue": more},
                "items": [
                    {"metadata": {"name": name, "managedFields": []}} for name in names
                ]}  # fmt: skip

    server.answers = [(200, {}, page("a", "b", more="token")), (200, {}, page("c"))]
    listing = await cluster.list(CONFIG_MAP, None, "stageline.dev/deployment")
    assert [item["metadata"]["name"] for item in listing.items] == ["a", "b", "c"]
    assert {(item["apiVersion"], item["kind"]) for item in listing.items} == {("v1", "ConfigMap")}
    assert listing.version == 9
    assert not any("managedFields" in item["metadata"] for item in listing.items), "half of it all"
    first, second = (path for _, path, *_ in server.asked)
    assert first.startswith("/api/v1/configmaps?limit=500&labelSelector=stageline.dev/deployment")
    assert "continue=token" in second


async def test_a_token_is_read_anew_so_that_it_may_be_replaced(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("one\n")
    made = await configuration(Connection(server=server.url, token_file=str(token)))
    cluster = KubeCluster(made, lambda *told: None)
    try:
        await cluster.get(CONFIG_MAP, "n", "a")
        token.write_text("two\n")
        await cluster.get(CONFIG_MAP, "n", "a")
        token.unlink()
        with pytest.raises(Busy, match="token"):
            await cluster.get(CONFIG_MAP, "n", "a")
    finally:
        await cluster.close()
    sent = [headers["Authorization"] for _, _, headers, _ in server.asked]
    assert sent == ["Bearer one", "Bearer two"]


async def test_requests_go_together(server, cluster):
    await asyncio.gather(*(cluster.get(CONFIG_MAP, "n", f"a{n}") for n in range(20)))
    assert len(server.asked) == 20


async def test_a_kubeconfig_that_names_no_server_is_refused_in_a_sentence(tmp_path):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\ncurrent-context: gone\ncontexts: []\n")
    with pytest.raises(NoConnectionError, match="give --server or --kubeconfig"):
        await configuration(Connection(kubeconfig=str(kubeconfig)))
