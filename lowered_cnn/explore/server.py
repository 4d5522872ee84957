"""The server of the page (extra `explore`): for its own host only, with bounds on all that a request may take."""

import asyncio
import gzip
import ipaddress
import math
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import numpy as np

from lowered_cnn.arrays import InputError
from lowered_cnn.cores import usable_cores
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.api import ADDRESSES, Handler
from lowered_cnn.explore.exploration import Exploration
from lowered_cnn.explore.fields import Fields, encoded
from lowered_cnn.explore.live import ConflictError
from lowered_cnn.explore.page import INDEX, Asset, assets

try:
    import h11
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    wanted = "Starlette and uvicorn (pip install 'lowered-cnn[explore]')"
    raise InputError("explore", wanted, f"no module named {error.name}") from error

PORT = 8017
"""The port that is tried first."""

BODY = 2**20
"""The most bytes of a body, unless the network's images need more."""

HEADERS = 2**14
"""The most bytes of a request's line and headers."""

PATIENCE = 10.0
"""How many seconds a client may take to send a request, and how long a request waits for a core."""

WAITING = 256
"""How many requests may wait for a core; any more are refused."""

CONNECTIONS = 512
"""How many connections there may be; any more are refused."""

SWITCHING = 0.0005
"""The seconds after which a thread that computes lets others have the interpreter, which they need for microseconds."""

COMPRESSED = 2**14
"""Answers of at least this many bytes are compressed for clients that accept it."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

CONFINED = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers that confine the page to itself, and others to theirs."""

AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(?::[0-9]+)?")

Endpoint = Callable[[Request], Awaitable[Response]]


class Guard:
    """Refuses what another page may have sent: requests to another host, by another origin, or not in JSON.

    A name that leads here but is not ours belongs to a page that wants to read ours (DNS rebinding). An address is
    ours if the connection came in on it. Every answer gets the headers that confine it.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = {"localhost", host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on what may pass."""

        async def confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(CONFINED)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, confined)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0], scope):
            return refused(421, "Host", f"{' or '.join(sorted(self.names))}", ", ".join(hosts)[:80] or "none")
        if origins not in ([], [f"http://{hosts[0]}"]):
            return refused(403, "Origin", f"http://{hosts[0]}", ", ".join(origins)[:80])
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return refused(415, "Content-Type", "application/json", kind[:80] or "none")
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        match = AUTHORITY.fullmatch(host.lower())
        if match is None:
            return False
        name = match[1].strip("[]")
        reached, _ = scope["server"]
        return name in self.names or same_address(name, reached)


class Gate:
    """Lets as many computations run at once as there are cores, and some wait for their turn; refuses all others."""

    def __init__(self) -> None:
        cores = usable_cores()
        self._free, self._waiting = asyncio.Semaphore(cores), 0
        self._threads = ThreadPoolExecutor(cores, "explore")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._free.acquire()
        except TimeoutError as error:
            raise _busy() from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()

    async def run(self, compute: Callable[[], Response]) -> Response:
        """Compute on a thread, when it is our turn."""
        async with self._turn():
            return await asyncio.get_running_loop().run_in_executor(self._threads, compute)


class PatientServer(uvicorn.Server):
    """A server that leaves signals alone, and ends when it is asked to."""

    def __init__(self, config: uvicorn.Config, ends: Callable[[], bool]) -> None:
        super().__init__(config)
        self._ends = ends

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; called ten times a second."""
        return await super().on_tick(counter) or self._ends()


class Connection(H11Protocol):
    """A connection that is closed if a request is begun, or not even begun, and nothing follows."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came in, and wait for more if it is not yet a request."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()

    def _wait(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(PATIENCE, self.timeout_keep_alive_handler)


def application(exploration: Exploration, host: str) -> ASGIApp:
    """Return the application: the page, its files and its addresses."""
    gate, limit = Gate(), max(BODY, 8 * math.prod(exploration.network.input_shape))
    routes = [
        Route(path, _endpoint(exploration, handlers, gate, limit), methods=[*handlers])
        for path, handlers in ADDRESSES.items()
    ]
    files = assets()
    routes += [Route("/", _file({"": files[INDEX]})), Route("/static/{name}", _file(files))]
    handlers = {HTTPException: _refuse, Exception: _fail}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, host)


def serve(exploration: Exploration, listening: socket.socket, host: str, ends: Callable[[], bool]) -> None:
    """Answer requests until `ends` returns True."""
    sys.setswitchinterval(SWITCHING)
    config = uvicorn.Config(
        application(exploration, host),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=int(PATIENCE),
        timeout_graceful_shutdown=int(PATIENCE),
        h11_max_incomplete_event_size=HEADERS,
    )
    PatientServer(config, ends).run([listening])


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens; without a port, on 8017 or, if that is taken, on any free one.

    Raises InputError if the host is not one of this machine's addresses or names, or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError("--host", "a name or an address of this machine", host) from error
    for number in (PORT, 0) if port is None else (port,):
        try:
            return socket.create_server((str(address[0]), number), family=family, backlog=CONNECTIONS)
        except OSError as error:
            refusal = error
    raise InputError("--host and --port", "a free port at an address of this machine", f"{host}:{port}: {refusal}")


def refused(status: int, where: str, expected: str, got: object) -> Response:
    """Return the answer to a request that is not served, in the form of all errors."""
    return _answer({"error": str(InputError(where, expected, got))}, status)


def same_address(text: str, other: str) -> bool:
    """Return whether two texts are the same address."""
    try:
        return ipaddress.ip_address(text) == ipaddress.ip_address(other)
    except ValueError:
        return False


def _endpoint(exploration: Exploration, handlers: Mapping[str, Handler], gate: Gate, limit: int) -> Endpoint:
    async def respond(request: Request) -> Response:
        is_post = request.method == "POST"
        handler = handlers["POST" if is_post else "GET"]
        body = await _body(request, limit) if is_post else b""
        pairs = [*request.query_params.multi_items(), *request.path_params.items()]
        zips = "gzip" in re.split(r"[\s,]+", request.headers.get("accept-encoding", ""))

        def compute() -> Response:
            try:
                fields = Fields.of_body(body) if is_post else Fields.of_query(pairs)
                with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are sent as null
                    return _answer(handler(exploration, fields), 200, zips)
            except InputError as error:
                return _answer({"error": str(error)}, 409 if isinstance(error, ConflictError) else 400)

        return await gate.run(compute)

    return respond


async def _body(request: Request, limit: int) -> bytes:
    """Return the body, unless it is too large or takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise HTTPException(413, str(InputError("body", f"at most {limit:,} bytes", "more")))
    except TimeoutError as error:
        raise HTTPException(408, str(InputError("body", f"all of it within {PATIENCE:g} s", "a part"))) from error
    except ClientDisconnect as error:
        raise HTTPException(400, str(InputError("body", "all of it", "a part"))) from error
    return bytes(body)


def _file(files: Mapping[str, Asset]) -> Endpoint:
    async def respond(request: Request) -> Response:
        asset = files.get(request.path_params.get("name", ""))
        if asset is None:
            raise HTTPException(404)
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == asset.tag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, headers=headers, media_type=asset.media_type)

    return respond


def _answer(value: JSON, status: int, zips: bool = False) -> Response:
    content, headers = encoded(value), {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    if zips and len(content) >= COMPRESSED:
        content, headers = gzip.compress(content, 1), {**headers, "Content-Encoding": "gzip"}
    return Response(content, status, headers, "application/json")


def _busy() -> HTTPException:
    return HTTPException(503, "server: expected a free core, got too many requests at once", {"Retry-After": "1"})


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _answer({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _fail(request: Request, error: Exception) -> Response:
    return _answer({"error": "server: expected no fault of its own, got one (see the terminal)"}, 500)
