"""The server behind the page: a few addresses that take and return JSON, on loopback."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lowered_cnn.arrays import InputError
from lowered_cnn.explore.exploration import Exploration
from lowered_cnn.explore.nudge import nudged
from lowered_cnn.explore.payload import packed, unpacked
from lowered_cnn.explore.traced import traced
from lowered_cnn.losses import softmax

if TYPE_CHECKING:
    from starlette.applications import Starlette


def application(exploration: Exploration) -> "Starlette":
    """Return the application."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
    folder = files("lowered_cnn.explore") / "static"
    served = {f.name: (f.read_bytes(), kinds[f.name.rpartition(".")[2]]) for f in folder.iterdir()}

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        folder_ = {f.name: (f.read_bytes(), kinds[f.name.rpartition(".")[2]]) for f in folder.iterdir()}
        content, kind = folder_[name]
        return Response(content, media_type=kind)

    def answer(function: Callable[[Any], Any]) -> Any:
        async def endpoint(request: Request) -> Response:
            body = (
                json.loads(await request.body())
                if request.method == "POST"
                else {**request.path_params, **request.query_params}
            )
            try:
                return JSONResponse(await run_in_threadpool(function, body))
            except InputError as error:
                return JSONResponse({"error": str(error)}, 400)

        return endpoint

    shape = exploration.network.input_shape

    def predict(body: Any) -> Any:
        if "drawing" in body:
            from lowered_cnn.data import fit_image, mnist_style

            side = body["drawing"]["shape"]
            drawn = unpacked("drawing", body["drawing"], tuple(side))
            image = mnist_style(drawn, "drawing") if exploration.framed else fit_image(drawn, shape, "drawing")
        else:
            image = unpacked("image", body["image"], shape)
        return {"image": packed(image), "probabilities": packed(softmax(exploration.network.predict(image[None]))[0])}

    def trace(body: Any) -> Any:
        return traced(exploration.network, unpacked("image", body["image"], shape), body["label"])

    def nudge(body: Any) -> Any:
        return nudged(
            exploration.network,
            unpacked("image", body["image"], shape),
            body["label"],
            body["parameter"],
            body["index"],
        )

    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", page),
            Route("/api/network", answer(lambda body: exploration.description())),
            Route("/api/example/{number:int}", answer(lambda body: exploration.example(body["number"]))),
            Route("/api/predict", answer(predict), methods=["POST"]),
            Route("/api/trace", answer(trace), methods=["POST"]),
            Route("/api/nudge", answer(nudge), methods=["POST"]),
        ]
    )
