"""An object store that is not ours: moto's S3 server on loopback, and how it can misbehave."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

_PIECE = 64 << 10
_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"


@dataclass
class Bucket:
    """A bucket `models`. `refuse` has statuses, codes and Retry-After ("" for none) that are
    answered first, one each, to whoever reads an object; after `drop` bytes of a body the
    connection breaks, `drops` times. `served` counts bytes by object."""

    url: str = ""
    refuse: list[tuple[int, str, str]] = field(default_factory=list)
    drop: int = 0
    drops: int = 0
    served: dict[str, int] = field(default_factory=dict)
    signed: set[bool] = field(default_factory=set)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def client(self) -> Any:
        """To fill the bucket with."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="writer",
            aws_secret_access_key="writer",
        )

    def upload(self, folder: Path, prefix: str, **options: Any) -> None:
        """Every file of a folder."""
        client = self.client()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder)}".lstrip("/")
                client.put_object(Bucket="models", Key=key, Body=path.read_bytes(), **options)
        client.close()

    def wrapped(self, application: Callable[..., Any]) -> Callable[..., Iterable[bytes]]:
        """The server, with its bytes counted and its misbehaviour."""

        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] != "GET":
                return application(environ, start)
            self.signed.add("HTTP_AUTHORIZATION" in environ)
            if self.refuse:
                status, code, after = self.refuse.pop(0)
                headers = [("Content-Type", "application/xml")]
                start(f"{status} No", headers + ([("Retry-After", after)] if after else []))
                return [_ERROR.format(code=code).encode()]
            return self._counted(environ["PATH_INFO"], application(environ, start))

        return answer

    def _counted(self, path: str, body: Iterable[bytes]) -> Iterator[bytes]:
        data = b"".join(body)
        with self.counting:
            breaks = bool(self.drop and self.drops and len(data) > self.drop)
            self.drops -= breaks
        for start in range(0, self.drop if breaks else len(data), _PIECE):
            piece = data[start : start + _PIECE]
            with self.counting:
                name = path.rpartition("/")[2]
                self.served[name] = self.served.get(name, 0) + len(piece)
            yield piece
        if breaks:
            raise ConnectionAbortedError


@contextmanager
def serving(bucket: Bucket) -> Iterator[Bucket]:
    """The bucket at `bucket.url`, until the block ends. One at a time: moto has one store."""
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    application = bucket.wrapped(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    server.daemon_threads = True
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="bucket")
    thread.start()
    try:
        s3_backends.reset()
        client = bucket.client()
        client.create_bucket(Bucket="models")
        client.close()
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
