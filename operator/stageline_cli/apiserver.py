"""Read from a Kubernetes API server, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from typing import IO, Any

from stageline_cli.failure import Failure
from stageline_cli.kubeconfig import Access

Object = dict[str, Any]

_ANSWER_SECONDS = 15.0
_WATCH_SECONDS = 300


class NotFoundError(Failure):
    """There is no such object, or the server does not know its kind."""


class ApiReader:
    """Gets and watches objects. Every error is a Failure with a sentence."""

    def __init__(self, access: Access) -> None:
        self._access = access
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.HTTPSHandler(context=_tls(access))
        ]
        if _is_loopback(access.server):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str, **query: str) -> Object:
        """The object, or the list of objects, at this path."""
        with self._open(path, query, _ANSWER_SECONDS) as answer:
            return dict(json.loads(answer.read()))

    def watch(self, path: str, version: str, **query: str) -> Iterator[Object]:
        """Events since the resource version, until the server ends the stream."""
        query |= {"watch": "true", "resourceVersion": version}
        query["timeoutSeconds"] = str(_WATCH_SECONDS)
        with self._open(path, query, _WATCH_SECONDS + _ANSWER_SECONDS) as answer:
            try:
                for line in answer:
                    yield json.loads(line)
            except (OSError, ValueError, http.client.HTTPException):  # cut off: the caller reads on
                return

    def _open(self, path: str, query: dict[str, str], seconds: float) -> IO[bytes]:
        url = self._access.server + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        if self._access.token:
            request.add_unredirected_header("Authorization", f"Bearer {self._access.token}")
        try:
            return self._opener.open(request, timeout=seconds)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            raise _refused(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = getattr(error, "reason", None) or error
            raise Failure(f"no answer from {self._access.server}: {why}") from None


def _refused(error: urllib.error.HTTPError) -> Failure:
    with error:
        content = error.read()
    try:
        sentence = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        sentence = f"{error.url} answered {error.code} {error.reason}"
    return NotFoundError(sentence) if error.code == 404 else Failure(sentence)


def _tls(access: Access) -> ssl.SSLContext:
    if not access.server.startswith("https:"):  # the system's certificates take 40 ms to read
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context(cadata=access.ca or None)
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.certificate:
        with tempfile.NamedTemporaryFile() as file:  # Python takes client certificates from files
            file.write(access.certificate)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _is_loopback(server: str) -> bool:
    host = urllib.parse.urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
