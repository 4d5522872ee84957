"""Load on the explorer: many clients ask for predictions at once, and every answer is right or a refusal.

`python scripts/load.py RUN` starts `lowered-cnn explore RUN` on this machine and prints how long the answers take.
"""

import argparse
import base64
import http.client
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

import numpy as np

from lowered_cnn import load, load_mnist, softmax
from lowered_cnn.explore.payload import packed

ATOL = 1e-6
"""How far a probability may be off: one image is multiplied in another order than many."""


def ask(port: int, body: bytes) -> tuple[int, float, list[float] | None]:
    """Ask for a prediction on a connection of its own; return the status, the seconds and the probabilities."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/api/predict", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
    finally:
        connection.close()
    seconds = time.perf_counter() - start
    if answer.status != 200:
        return answer.status, seconds, None
    return 200, seconds, np.frombuffer(base64.b64decode(content["probabilities"]["data"]), "<f4").tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder written by lowered-cnn train on MNIST")
    parser.add_argument("--clients", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--requests", type=int, default=2000, help="in all (%(default)s)")
    arguments = parser.parse_args()
    images = load_mnist().test.images[: arguments.requests]
    wanted = softmax(load(arguments.run / "model.safetensors").predict(images))
    bodies = [json.dumps({"image": packed(image.reshape(1, 28, 28))}).encode() for image in images]
    command = [sys.executable, "-m", "lowered_cnn.cli", "explore", str(arguments.run), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = urlsplit(server.stdout.readline().strip()).port
        assert port is not None
        try:
            start = time.perf_counter()
            with ThreadPoolExecutor(arguments.clients) as clients:
                answers = list(clients.map(lambda body: ask(port, body), bodies))
            seconds = time.perf_counter() - start
        finally:
            server.terminate()
    times = sorted(1000 * took for status, took, _ in answers if status == 200)
    refused = sum(status == 503 for status, _, _ in answers)
    wrong = sum(
        status not in (200, 503) or (found is not None and not np.allclose(found, right, rtol=0, atol=ATOL))
        for (status, _, found), right in zip(answers, wanted, strict=True)
    )
    print(
        f"{arguments.clients} clients, {len(answers):,} requests: {len(answers) / seconds:,.0f} per second; "
        f"median {median(times):.0f} ms, 95 % within {quantiles(times, n=20)[-1]:.0f} ms, "
        f"longest {times[-1]:.0f} ms; {refused} refused, {wrong} wrong"
    )


if __name__ == "__main__":
    main()
