"""Watches: what they tell, from where, and how they end."""

import http.client
import json
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest

from stageline_local.apiserver import faults, watching
from stageline_local.apiserver.kinds import BUILT_IN
from stageline_local.apiserver.store import Change
from support.apiserver import CORE, MERGE, PIPELINES, ask, config_map, pipeline, pod

MAPS = f"{CORE}/configmaps"


class Stream:
    """A watch, read line by line."""

    def __init__(self, response):
        self.response = response

    def next(self):
        line = self.response.readline()
        return json.loads(line) if line else None

    def take(self, count):
        return [self.next() for _ in range(count)]

    def rest(self):
        return [json.loads(line) for line in self.response]


@contextmanager
def watch(server, path, **query):
    said = "&".join(f"{key}={value}" for key, value in {"timeoutSeconds": 10, **query}.items())
    url = f"{server.url}{path}{'&' if '?' in path else '?'}watch=true&{said}"
    with urllib.request.urlopen(url, timeout=15) as response:
        yield Stream(response)


def ended_within(seconds, stream):
    start = time.monotonic()
    with suppress(OSError, http.client.HTTPException):  # by a reset or in the middle of a chunk
        stream.rest()
    return time.monotonic() - start < seconds


def told(events):
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


@pytest.fixture
def call(server):
    return lambda *request, **how: ask(server.url, *request, **how)


def test_a_watch_tells_what_happens(server, call):
    with watch(server, MAPS) as stream:
        call("POST", MAPS, config_map("a"))
        call("PATCH", f"{MAPS}/a", {"data": {"x": "1"}}, MERGE)
        call("PATCH", f"{MAPS}/a", {"data": {"x": "1"}}, MERGE)  # nothing new
        call("DELETE", f"{MAPS}/a")
        assert told(stream.take(3)) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_begins_with_what_there_is(server, call):
    call("POST", MAPS, config_map("a"))
    with watch(server, MAPS) as stream:
        assert told([stream.next()]) == [("ADDED", "a")]


def test_a_watch_goes_on_from_a_version(server, call):
    call("POST", MAPS, config_map("a"))
    version = call("GET", MAPS).body["metadata"]["resourceVersion"]
    call("POST", MAPS, config_map("b"))
    call("DELETE", f"{MAPS}/a")
    with watch(server, MAPS, resourceVersion=version) as stream:
        assert told(stream.take(2)) == [("ADDED", "b"), ("DELETED", "a")]


def test_versions_grow_with_every_event(server, call):
    with watch(server, MAPS) as stream:
        for name in "abc":
            call("POST", MAPS, config_map(name))
        call("DELETE", f"{MAPS}/a")
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in stream.take(4)]
    assert versions == sorted(set(versions))


def test_what_leaves_the_selection_is_deleted_to_its_watchers(server, call):
    with watch(server, MAPS, labelSelector="a%3Db") as stream:
        call("POST", MAPS, config_map("other"))
        call("POST", MAPS, {**config_map("x"), "metadata": {"name": "x", "labels": {"a": "b"}}})
        call("PATCH", f"{MAPS}/x", {"metadata": {"labels": {"a": "c"}}}, MERGE)
        call("PATCH", f"{MAPS}/x", {"metadata": {"labels": {"a": "b"}}}, MERGE)
        assert told(stream.take(3)) == [("ADDED", "x"), ("DELETED", "x"), ("ADDED", "x")]


def test_fields_select_too(server, call):
    with watch(server, "/api/v1/pods", fieldSelector="spec.nodeName%3Dn1") as stream:
        call("POST", f"{CORE}/pods", pod("a"))
        binding = {"metadata": {"name": "a"}, "target": {"name": "n1"}}
        call("POST", f"{CORE}/pods/a/binding", binding)
        assert told([stream.next()]) == [("ADDED", "a")]


def test_other_namespaces_and_kinds_are_not_told(server, call):
    with watch(server, MAPS) as stream:
        call("POST", "/api/v1/namespaces/kube-system/configmaps", config_map("far"))
        call("POST", PIPELINES, pipeline())
        call("POST", MAPS, config_map("near"))
        assert told([stream.next()]) == [("ADDED", "near")]


def test_the_first_objects_end_with_a_bookmark(server, call):
    call("POST", MAPS, config_map("a"))
    wishes = {"sendInitialEvents": "true", "allowWatchBookmarks": "true"}
    with watch(server, MAPS, **wishes) as stream:
        first, mark = stream.take(2)
    assert first["type"] == "ADDED"
    assert mark["type"] == "BOOKMARK"
    meta = mark["object"]["metadata"]
    assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(meta["resourceVersion"]) >= int(first["object"]["metadata"]["resourceVersion"])


def test_bookmarks_come_when_all_is_quiet(server, call, monkeypatch):
    monkeypatch.setattr(watching, "BOOKMARK_SECONDS", 0.05)
    with watch(server, MAPS, allowWatchBookmarks="true") as stream:
        assert stream.next()["type"] == "BOOKMARK"
    with watch(server, MAPS, timeoutSeconds=1) as stream:
        assert stream.rest() == [], "a client that did not ask for bookmarks gets none"


def test_a_watch_ends_in_time(server):
    with watch(server, MAPS, timeoutSeconds=1) as stream:
        assert stream.rest() == []


def test_a_version_that_is_forgotten_is_an_error(server, call):
    call("POST", MAPS, config_map("a"))
    version = call("GET", MAPS).body["metadata"]["resourceVersion"]
    call("POST", MAPS, config_map("b"))
    server.compact()
    with watch(server, MAPS, resourceVersion=version) as stream:
        (event,) = stream.rest()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert event["object"]["reason"] == "Expired"
    now = call("GET", MAPS).body["metadata"]["resourceVersion"]
    with watch(server, MAPS, resourceVersion=now, timeoutSeconds=1) as stream:
        assert stream.rest() == [], "the present version is never too old"


def test_dropped_watches_end_and_others_live(server, call):
    with watch(server, MAPS) as stream:
        call("POST", MAPS, config_map("a"))
        stream.next()
        server.drop_watches()
        assert ended_within(5.0, stream), "the watch goes on"
    assert call("GET", MAPS).code == 200


def test_a_restart_keeps_the_objects(server, call):
    call("POST", MAPS, config_map("a"))
    server.restart()
    assert told([{"type": "", "object": each} for each in call("GET", MAPS).body["items"]]) == [
        ("", "a")
    ]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faults.conflict(), 409),
        (faults.too_many_requests(faults.every_write, 3), 429),
        (faults.internal_error(faults.every_write), 500),
        (faults.refuse(faults.every_write, 403, "Forbidden", "no"), 403),
    ],
)
def test_faults_strike_so_often_and_no_more(server, call, fault, code):
    server.faults.append(faults.times(2, fault))
    codes = [call("POST", MAPS, config_map(name)).code for name in "abc"]
    assert codes == [code, code, 201]
    assert call("GET", MAPS).code == 200


def test_a_busy_server_says_when_to_come_back(server):
    server.faults.append(faults.too_many_requests(lambda request: True, 7))
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(server.url):
        pass
    with caught.value as answer:
        assert answer.headers["Retry-After"] == "7"


def test_a_connection_can_break(server, call):
    server.faults.append(faults.times(1, faults.reset(lambda request: True)))
    with pytest.raises(OSError, match=r".*"):
        call("GET", MAPS)
    assert call("GET", MAPS).code == 200


def test_a_gone_watch_is_told_so(server):
    server.faults.append(faults.gone())
    with pytest.raises(urllib.error.HTTPError) as caught, watch(server, MAPS):
        pass
    with caught.value as answer:
        assert answer.code == 410


def test_requests_are_remembered(server, call):
    call("PATCH", f"{MAPS}/a?fieldManager=me", config_map("a"), "application/apply-patch+yaml")
    request = server.requests[-1]
    assert (request.method, request.path, request.manager) == ("PATCH", f"{MAPS}/a", "me")
    assert request.agent == "tests/1"


def test_many_writers_lose_nothing(server, call):
    """Every one of many writes at once is told, once, and in order."""
    with watch(server, MAPS) as stream:

        def write(part):
            for number in range(10):
                call("POST", MAPS, config_map(f"{part}-{number}"))

        writers = [threading.Thread(target=write, args=(part,)) for part in "abc"]
        for writer in writers:
            writer.start()
        events = stream.take(30)
        for writer in writers:
            writer.join()
    assert sorted(name for _, name in told(events)) == sorted(
        f"{part}-{number}" for part in "abc" for number in range(10)
    )


POD_KIND = next(kind for kind in BUILT_IN if kind.kind == "Pod")
IN = {"metadata": {"name": "p", "namespace": "ns", "labels": {"a": "b"}}}
OUT = {"metadata": {"name": "p", "namespace": "ns", "labels": {}}}


@pytest.mark.parametrize(
    ("what", "before", "after", "seen"),
    [
        ("ADDED", None, IN, "ADDED"),
        ("ADDED", None, OUT, None),
        ("MODIFIED", OUT, IN, "ADDED"),
        ("MODIFIED", IN, IN, "MODIFIED"),
        ("MODIFIED", IN, OUT, "DELETED"),
        ("MODIFIED", OUT, OUT, None),
        ("DELETED", IN, IN, "DELETED"),
        ("DELETED", OUT, OUT, None),
    ],
)
def test_a_change_as_a_selection_sees_it(what, before, after, seen):
    change = Change(1, POD_KIND.store, what, after, before)

    def is_in(obj):
        return obj["metadata"]["labels"].get("a") == "b"

    selection = watching.Watch(POD_KIND, "ns", is_in, None, False, False, 1.0, dict)
    event = watching.seen(selection, change)
    assert (event[0] if event else None) == seen
