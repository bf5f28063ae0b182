"""Who is let in: whoever can write to the server can start processes here."""

import urllib.error
import urllib.request

import pytest

from stageline_local.apiserver import served
from support.apiserver import CORE, ask


def code(url, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=names)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Authorization": "Bearer anything"}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:8001"}, 200),
        ({"Host": "rebound.example.com:1"}, 403),
        ({"Origin": "https://example.com"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_web_pages_are_refused(server, headers, expected):
    assert code(f"{server.url}{CORE}/pods", **headers) == expected


def test_a_form_of_a_web_page_is_no_object(server):
    answer = ask(
        server.url, "POST", f"{CORE}/configmaps", {"metadata": {"name": "c"}}, "text/plain"
    )
    assert answer.code == 415


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer s3cret"}, 200),
    ],
)
def test_a_token_must_be_known(headers, expected):
    with served(token="s3cret") as server:
        assert code(f"{server.url}{CORE}/pods", **headers) == expected
