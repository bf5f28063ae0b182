"""tritonclient, unmodified, through kubectl port-forward."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from e2e.cluster import program
from support.clients import text_input

MODEL = "tiny-llama"
PROMPT = "The value of the "
MAX_TOKENS = 16
ANSWER_SECONDS = 60.0
_FORWARDING = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")


@contextmanager
def forwarded(namespace: str, target: str, port: int = 8001) -> Iterator[str]:
    """host:port on this machine that leads to a port of the target."""
    where = ("--namespace", namespace, "--address", "127.0.0.1")
    command = [str(program("kubectl")), "port-forward", *where, target, f":{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    reader = threading.Thread(target=process.stdout.read)  # it tells of every connection
    try:
        first = process.stdout.readline()
        found = _FORWARDING.match(first)
        assert found, f"kubectl port-forward {target} says {first + process.stdout.read()!r}"
        reader.start()
        yield found[1]
    finally:
        process.kill()
        process.wait()
        if reader.is_alive():
            reader.join()
        process.stdout.close()


def written(client: triton.InferenceServerClient) -> str:
    """PROMPT, and what the model writes behind it, greedily."""
    answer = client.infer(
        MODEL,
        [text_input(PROMPT)],
        parameters={"max_tokens": MAX_TOKENS, "temperature": 0.0},
        client_timeout=ANSWER_SECONDS,
    )
    return answer.as_numpy("text_output")[0].decode()


class Load:
    """Clients that ask one after the other for as long as this is open.

    Leaving it fails unless every request was answered, and with the text of the uncut model.
    """

    def __init__(self, address: str, expected: str, clients: int = 2) -> None:
        self._address = address
        self._expected = expected
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.answered = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.more()
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        if kind is None:
            total = self.answered + len(self.wrong)
            assert not self.wrong, f"{len(self.wrong)} of {total} requests: {self.wrong[:3]}"

    def more(self, requests: int = 4) -> None:
        """Wait until so many more are answered."""
        wanted, deadline = self.answered + requests, time.monotonic() + 2 * ANSWER_SECONDS
        while self.answered < wanted and not self.wrong:
            assert time.monotonic() < deadline, f"{self.answered} requests, and no more"
            time.sleep(0.05)

    def _ask(self) -> None:
        with triton.InferenceServerClient(self._address) as client:
            while not self._stop.is_set():
                try:
                    text = written(client)
                except InferenceServerException as error:
                    self.wrong.append(f"{error.status()}: {error.message()}")
                    continue
                if text == self._expected:
                    self.answered += 1
                else:
                    self.wrong.append(f"wrote {text!r}, the uncut model {self._expected!r}")
