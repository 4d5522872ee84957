"""The process that one framework runs in: it reads questions as lines of JSON, and answers each in a line of JSON."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarking.processes import ANSWER


def main() -> None:
    cores = int(sys.argv[1])
    # Before anything is imported that counts the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    for line in sys.stdin:
        details = json.loads(line)
        answer = _answer(details.pop("ask"), {**details, "cores": cores})
        print(ANSWER + json.dumps(answer), flush=True)


def _answer(ask: str, details: dict[str, Any]) -> object:
    if ask == "start":
        from benchmarking.cold_start import start  # which imports nothing before the clock runs

        return start(**details)
    if ask == "growth":
        from benchmarking.growth import growth

        return growth(**details)
    from benchmarking import questions

    answers: dict[str, Callable[..., object]] = {
        "measure": questions.measure,
        "speed": questions.speed,
        "trained_outputs": questions.trained_outputs,
    }
    return answers[ask](**details)


if __name__ == "__main__":
    main()
