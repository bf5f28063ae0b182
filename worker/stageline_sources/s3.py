"""s3://bucket/folder: a model in an object store, read by botocore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)

from stageline_sources.errors import Interruption, SourceError
from stageline_sources.patience import asked_seconds
from stageline_sources.source import Body

_CHUNK = 1 << 20
_CONNECTIONS = 16
_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "max_pool_connections": _CONNECTIONS,
    "retries": {"mode": "standard", "total_max_attempts": 1},  # whoever reads goes on by itself
}
_LATER = {429, 500, 502, 503, 504}
_LATER_CODES = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"}
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}


class S3:
    """A folder of a bucket. AWS_* variables are read as botocore reads them; without credentials it
    asks as anybody, which a public bucket answers."""

    commit = ""
    pinned = ""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._bucket, _, folder = uri.removeprefix("s3://").partition("/")
        self._folder = folder.strip("/")
        self._was_read = False
        session = botocore.session.get_session()
        # What the node may do is not for a model's pod to use, and elsewhere nobody answers.
        session.get_component("credential_provider").remove("iam-role")
        try:
            self._signed = session.get_credentials() is not None
            options = {} if self._signed else {"signature_version": UNSIGNED}
            # Other clients read AWS_REGION, botocore AWS_DEFAULT_REGION alone.
            region = session.get_config_variable("region") or os.environ.get("AWS_REGION")
            self._client: Any = session.create_client(
                "s3", region_name=region or "us-east-1", config=Config(**_CONFIG, **options)
            )
        except (BotoCoreError, ValueError) as error:
            raise SourceError(f"{uri} cannot be read: {_line(error)}; check AWS_*") from None

    @property
    def place(self) -> str:
        """Where its files are."""
        return f"{self._client.meta.endpoint_url}/{self._bucket}/{self._folder}"

    @contextmanager
    def open(
        self, name: str, part: tuple[int, int] | None = None, version: str = ""
    ) -> Iterator[Body | None]:
        """One try. An object of another ETag than `version` is refused."""
        asked: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": f"{self._folder}/{name}".lstrip("/"),
        }
        if part is None:
            asked["ChecksumMode"] = "ENABLED"
        else:
            asked["Range"] = f"bytes={part[0]}-{part[1] - 1}"
        if version:
            asked["IfMatch"] = version
        try:
            answer = self._answer(name, asked)
            if answer is None:
                yield None
                return
            # Not `with answer["Body"]`: that gives what is below it, which checks nothing.
            with closing(answer["Body"]) as stream:
                yield Body(self._size(name, answer, part), answer.get("ETag", ""), _read(stream))
        except FlexibleChecksumError:
            raise SourceError(
                f"{self.uri}: {name} arrived damaged, its checksum is not the object's; if that "
                "happens again, the object is damaged"
            ) from None
        except (HTTPClientError, IncompleteReadError, OSError) as error:
            where = self._client.meta.endpoint_url
            raise Interruption(f"no answer from {where} ({_line(error)})") from None
        except BotoCoreError as error:
            raise SourceError(f"{self.uri} cannot be read: {_line(error)}; check AWS_*") from None

    def _answer(self, name: str, asked: dict[str, Any]) -> Any:
        """The object, None when there is none."""
        try:
            answer = self._client.get_object(**asked)
        except ClientError as error:
            if self._is_missing(error):
                return None
            raise self._refusal(name, error) from None
        self._was_read = True
        return answer

    def _size(self, name: str, answer: Any, part: tuple[int, int] | None) -> int:
        """Bytes of the whole object."""
        if part is None:
            return int(answer["ContentLength"])
        sent, _, size = answer.get("ContentRange", "").rpartition("/")
        if not sent.startswith(f"bytes {part[0]}-") or not size.isdigit():
            raise SourceError(
                f"{self.uri}: {self._client.meta.endpoint_url} does not serve {name} in parts"
            )
        return int(size)

    def _is_missing(self, error: ClientError) -> bool:
        code = error.response["Error"].get("Code", "")
        # To whom may not list the bucket, S3 does not tell a missing object from a forbidden one.
        return code in ("NoSuchKey", "404") or (code == "AccessDenied" and self._was_read)

    def _refusal(self, name: str, error: ClientError) -> SourceError | Interruption:
        uri = self.uri
        code = error.response["Error"].get("Code", "")
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        if status in _LATER or code in _LATER_CODES:
            return Interruption(f"the object store answered {code or status}", _wait(error))
        if code == "NoSuchBucket":
            return SourceError(f"{uri}: there is no bucket {self._bucket}")
        if code == "ExpiredToken":
            return SourceError(f"{uri}: the credentials in AWS_* have expired: renew the Secret")
        if code in _WRONG_KEYS and self._signed:
            return SourceError(
                f"{uri}: the object store does not accept the credentials in AWS_* ({code}): "
                "check the Secret"
            )
        if status == 412:
            return SourceError(f"{uri}: {name} was replaced while it was read: start again")
        if status in (401, 403):
            who = "the owner of AWS_ACCESS_KEY_ID" if self._signed else "nobody without AWS_*"
            return SourceError(
                f"{uri} is not there, or {who} may read it: name a Secret with credentials that "
                "may in spec.model.secretName"
            )
        return SourceError(f"{uri}: the object store answered {code or status} for {name}")


def _read(stream: Any) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _wait(error: ClientError) -> float | None:
    headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    return asked_seconds(headers.get("retry-after", ""), datetime.now(UTC))


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
