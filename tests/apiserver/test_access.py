"""Who is let in: whoever can write to the server can start processes here."""

import asyncio
import os
import urllib.error
import urllib.request

import pytest

from stageline_local.apiserver import ApiServer, access, served
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


_GET = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_of_the_machine_is_kept_out(monkeypatch):
    """We are root here, who may anything: the server takes itself for an ordinary user's."""
    server = ApiServer(own_user_only=True)
    monkeypatch.setattr(access, "_ROOT", -1)
    monkeypatch.setattr(access.os, "getuid", lambda: 65534)
    url = await server.start()
    try:
        codes = [await status(url, user) for user in (65534, 1234)]
    finally:
        await server.stop()
    assert codes == ["", "HTTP Error 403: Forbidden"]


async def status(url, user):
    """What a process of this user hears; nothing when it is let in."""
    process = await asyncio.create_subprocess_exec(
        *("/usr/bin/env", "python3", "-c", _GET, f"{url}/version"),
        stderr=asyncio.subprocess.PIPE,
        user=user,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
    )
    _, errors = await process.communicate()
    lines = errors.decode().splitlines()
    return lines[-1].removeprefix("urllib.error.HTTPError: ") if lines else ""


async def test_our_own_processes_are_let_in():
    server = ApiServer(own_user_only=True)
    url = await server.start()
    try:
        assert await status(url, os.getuid()) == ""
    finally:
        await server.stop()
