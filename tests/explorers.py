"""Explorers that tests start, and clients that talk to them over real sockets."""

import base64
import gzip
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from programs import SECONDS, eventually, program


@dataclass(frozen=True)
class Answer:
    """What came back: the status, the headers by their names in lower case, and the content, uncompressed."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.content)

    @property
    def error(self) -> str:
        """The one line of an error, which is all that its answer has."""
        assert self.status >= 400
        assert self.json.keys() == {"error"}
        line = self.json["error"]
        assert isinstance(line, str)
        assert line
        assert "\n" not in line
        return line


@dataclass(frozen=True)
class Explorer:
    """A server that runs: its process and where it listens."""

    process: "subprocess.Popen[str]"
    host: str
    port: int

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            content = response.read()
        finally:
            connection.close()
        return Answer(
            response.status, found, gzip.decompress(content) if found.get("content-encoding") == "gzip" else content
        )

    def get(self, path: str) -> Any:
        """Return the JSON at an address."""
        answer = self.request("GET", path)
        assert answer.status == 200, answer.content
        return answer.json

    def send(self, path: str, value: object, **headers: str) -> Answer:
        """Send JSON, or bytes that may not be JSON."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = {"Content-Type": "application/json"}
        return self.request("POST", path, body, kind | {name.replace("_", "-"): text for name, text in headers.items()})

    def post(self, path: str, value: object) -> Any:
        """Send JSON, and return the JSON that it is answered with."""
        answer = self.send(path, value)
        assert answer.status == 200, answer.content
        return answer.json

    def state(self) -> str:
        """Return the state of the training."""
        return str(self.get("/api/training?after=1000000")["state"])

    def trained(self, **options: object) -> Any:
        """Start a training, wait for its end, and return its progress."""
        self.post("/api/training", {"action": "start", **options})
        assert eventually(lambda: self.state() != "running")
        return self.get("/api/training?after=0")


@contextmanager
def exploring(*arguments: str | Path) -> Iterator[Explorer]:
    """Start `lowered-cnn explore` on a free port, without a browser."""
    command = [sys.executable, "-m", "lowered_cnn.cli", "explore", *arguments, "--no-browser", "--port", "0"]
    with program(command) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://"), process.communicate()[1]
        url = urlsplit(line.strip())
        assert url.hostname is not None
        assert url.port is not None
        yield Explorer(process, url.hostname, url.port)


def pack(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return an array as the page sends it."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def unpack(value: Any) -> npt.NDArray[Any]:
    """Return an array as the page reads it."""
    assert value.keys() == {"dtype", "shape", "data"}
    dtype = {"uint8": "u1", "float32": "<f4"}[value["dtype"]]
    return np.frombuffer(base64.b64decode(value["data"], validate=True), dtype).reshape(value["shape"])
