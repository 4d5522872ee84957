"""The process that one framework runs in: it gets its question as JSON on the command line and prints JSON."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main() -> None:
    question = json.loads(sys.argv[1])
    # Before anything is imported that counts the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: question["cores"]])
    print(json.dumps(_answer(question.pop("ask"), question)))


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
        "peak": questions.peak,
        "trained_outputs": questions.trained_outputs,
    }
    return answers[ask](**details)


if __name__ == "__main__":
    main()
