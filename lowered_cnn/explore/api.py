"""The addresses of the explorer: what each takes from a request, and what it answers, apart from HTTP."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from lowered_cnn.arrays import Images, InputError
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.exploration import Exploration
from lowered_cnn.explore.fields import Fields
from lowered_cnn.explore.payload import drawing, image

Handler: TypeAlias = Callable[[Exploration, Fields], dict[str, JSON]]

MOST_EPOCHS = 20


def network(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Describe the network as it was after a step."""
    fields.only("step")
    return exploration.description(_step(fields))


def example(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Return a test image."""
    fields.only("number")
    return exploration.example(fields.number("number", 0))


def predict(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Classify an image, or a drawing that becomes one."""
    fields.only("image", "drawing", "step")
    if {"image", "drawing"} <= fields.values.keys():
        raise InputError("request", "an image or a drawing", "both")
    if "drawing" in fields.values:
        shown: Images = exploration.fitted(drawing(fields.field("drawing")))
    else:
        shown = _image(exploration, fields)
    return exploration.predict(shown, _step(fields))


def trace(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Trace an image forward and backward."""
    fields.only("image", "label", "step")
    return exploration.trace(_image(exploration, fields), fields.number("label", 0), _step(fields))


def nudge(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Nudge one number of a parameter."""
    fields.only("image", "label", "parameter", "index", "step")
    return exploration.nudge(
        _image(exploration, fields),
        fields.number("label", 0),
        fields.text("parameter"),
        fields.number("index", 0),
        _step(fields),
    )


def ledger(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Say what a training step costs."""
    fields.only()
    return exploration.ledger()


def progress(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Say how far the training has come, and what happened after a step."""
    fields.only("after")
    return exploration.training.progress(fields.number_if_any("after", 0) or 0)


def control(exploration: Exploration, fields: Fields) -> dict[str, JSON]:
    """Start, pause, resume or stop the training."""
    training, action = exploration.training, fields.text("action")
    if action == "start":
        fields.only("action", "epochs", "learning_rate")
        training.start(fields.number_if_any("epochs", 1, MOST_EPOCHS), fields.rate_if_any("learning_rate"))
    else:
        fields.only("action")
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


def _image(exploration: Exploration, fields: Fields) -> Images:
    return image(fields.field("image"), exploration.network.input_shape)


def _step(fields: Fields) -> int | None:
    return fields.number_if_any("step", 0)
