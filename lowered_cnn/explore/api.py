"""The addresses of the explorer: what each takes from a request, and what it answers, apart from HTTP."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from lowered_cnn.arrays import Images, InputError
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.exploration import Exploration
from lowered_cnn.explore.payload import drawing, image
from lowered_cnn.explore.requests import Request

Handler: TypeAlias = Callable[[Exploration, Request], dict[str, JSON]]

MOST_EPOCHS = 20


def network(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Describe the network as it was after a step."""
    request.only("step")
    return exploration.description(_step(request))


def example(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Return a test image."""
    request.only("number")
    return exploration.example(request.number("number", 0))


def predict(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Classify an image, or a drawing that becomes one."""
    request.only("image", "drawing", "step")
    if {"image", "drawing"} <= request.fields.keys():
        raise InputError("request", "an image or a drawing", "both")
    if "drawing" in request.fields:
        shown: Images = exploration.fitted(drawing(request.field("drawing")))
    else:
        shown = _image(exploration, request)
    return exploration.predict(shown, _step(request))


def trace(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Trace an image forward and backward."""
    request.only("image", "label", "step")
    return exploration.trace(_image(exploration, request), request.number("label", 0), _step(request))


def nudge(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Nudge one number of a parameter."""
    request.only("image", "label", "parameter", "index", "step")
    return exploration.nudge(
        _image(exploration, request),
        request.number("label", 0),
        request.text("parameter"),
        request.number("index", 0),
        _step(request),
    )


def ledger(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Say what a training step costs."""
    request.only()
    return exploration.ledger()


def progress(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Say how far the training is, and what happened after a step."""
    request.only("after")
    return exploration.training.progress(request.number_if_any("after", 0) or 0)


def control(exploration: Exploration, request: Request) -> dict[str, JSON]:
    """Start, pause, resume or stop the training."""
    training, action = exploration.training, request.text("action")
    if action == "start":
        request.only("action", "epochs", "learning_rate")
        training.start(request.number_if_any("epochs", 1, MOST_EPOCHS), request.rate_if_any("learning_rate"))
    else:
        request.only("action")
        actions = {"pause": training.pause, "resume": training.resume, "stop": training.stop}
        if action not in actions:
            raise InputError("action", f"start, {', '.join(actions)}", repr(action)[:60])
        actions[action]()
    return training.progress(0)


ADDRESSES: Mapping[str, Mapping[str, Handler]] = {
    "/api/network": {"GET": network},
    "/api/example/{number}": {"GET": example},
    "/api/predict": {"POST": predict},
    "/api/trace": {"POST": trace},
    "/api/nudge": {"POST": nudge},
    "/api/ledger": {"GET": ledger},
    "/api/training": {"GET": progress, "POST": control},
}
"""What answers each method at each address."""


def _image(exploration: Exploration, request: Request) -> Images:
    return image(request.field("image"), exploration.network.input_shape)


def _step(request: Request) -> int | None:
    return request.number_if_any("step", 0)
