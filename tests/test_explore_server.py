"""The explorer's server: what it answers is what the library computes, and nothing that comes in brings it down."""

import http.client
import json
import signal
import socket
import string
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorers import Explorer, exploring, pack, unpack
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from programs import SECONDS

from lowered_cnn import (
    BatchNorm,
    Conv2D,
    ConvTranspose2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    InputError,
    Network,
    Recipe,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    SoftmaxCrossEntropy,
    load,
    load_mnist,
    softmax,
    summary,
    trace,
)
from lowered_cnn.arrays import Shape
from lowered_cnn.data import fit_image, mnist_style
from lowered_cnn.explore.bundle import bundled
from lowered_cnn.explore.description import described
from lowered_cnn.explore.exploration import Exploration
from lowered_cnn.explore.fields import Fields
from lowered_cnn.explore.live import LiveTraining
from lowered_cnn.explore.page import texts
from lowered_cnn.explore.snapshots import Snapshot
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.conv_transpose import ConvTranspose
from lowered_cnn.models import MODELS, adaptive, deep
from lowered_cnn.tracing import Recorder

pytestmark = pytest.mark.slow  # each test talks to a server

POST = ("predict", "trace", "nudge", "training")


@pytest.fixture(scope="module")
def network(run: Path) -> Network:
    return load(run / "model.safetensors")


@pytest.fixture(scope="module")
def digit() -> Any:
    return load_mnist().test.images[0]


def exploration_of(model: Sequential, shape: Shape, classes: int = 10, name: str = "test") -> Exploration:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * classes, *shape), dtype=np.uint8)
    data = Dataset(images, np.arange(4 * classes) % classes, tuple(map(str, range(classes))))
    network = Network(model, shape)
    return Exploration(name, network, data, LiveTraining(network, data, None, Recipe()), is_framed=False)


def test_the_network_is_described_as_it_is(explorer: Explorer, network: Network, few_digits: Path, run: Path) -> None:
    found = explorer.get("/api/network")
    assert found["classes"] == [str(digit) for digit in range(10)]
    assert found["input_shape"] == [1, 28, 28]
    assert (found["framed"], found["saved"], found["autostart"]) == (True, False, False)
    assert found["weights"].keys() == set(network.parameters)
    for name in network.parameters:
        assert np.array_equal(unpack(found["weights"][name]), network.parameters[name])
    assert (found["steps"], found["step"]) == ([36], 36)
    assert [stage["name"] for stage in found["stages"]] == [row.name for row in summary(network).rows]
    conv = found["stages"][0]
    assert (conv["view"], conv["sweep"]["kernel"], conv["output_shape"]) == ("conv", [5, 5], [8, 24, 24])
    for place in (conv["code"]["forward"]["place"], found["code"]["im2col"]["place"]):
        path, line = place.split(":")
        assert "def " in "".join(
            (Path(__file__).parents[1] / path).read_text().splitlines()[int(line) - 1 : int(line) + 1]
        )


def test_its_accuracy_and_mistakes_are_those_of_the_test_images(explorer: Explorer, network: Network) -> None:
    found = explorer.get("/api/network")
    test = load_mnist().test.take(np.arange(200))
    probabilities = softmax(network.predict(test.images))
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != test.labels)
    assert found["test"]["count"] == 200
    assert found["test"]["accuracy"] == pytest.approx(1 - len(wrong) / 200)
    least = min(probabilities[n].max() for n in range(len(probabilities)) if n not in wrong)
    assert probabilities[found["test"]["hardest"]].max() == least
    mistakes = found["test"]["mistakes"]
    assert {mistake["number"] for mistake in mistakes} == set(wrong.tolist())
    for mistake in mistakes:
        row = probabilities[mistake["number"]]
        assert (mistake["label"], mistake["predicted"]) == (test.labels[mistake["number"]], row.argmax())
    sure = [probabilities[mistake["number"]].max() for mistake in mistakes]
    assert sure == sorted(sure, reverse=True)


def test_a_network_is_tested_on_some_images_of_many(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowered_cnn.explore.snapshots.MOST_TESTED", 50)
    test = load_mnist().test.take(np.arange(200))
    tested = Snapshot(36, network).tested(test)
    answers = network.predict(test.images).argmax(axis=1)
    wrong = {mistake.number for mistake in tested.mistakes}
    assert (tested.count, tested.accuracy) == (50, 1 - len(wrong) / 50)
    for mistake in tested.mistakes:
        assert (mistake.label, mistake.predicted) == (test.labels[mistake.number], answers[mistake.number])
        assert mistake.label != mistake.predicted
    assert answers[tested.hardest] == test.labels[tested.hardest]
    assert min(wrong) < 50 < 150 < max(wrong)  # they are spread over all


def test_an_example_is_a_test_image(explorer: Explorer) -> None:
    test = load_mnist().test
    for number in (0, 7, 199):
        found = explorer.get(f"/api/example/{number}")
        assert (found["number"], found["label"]) == (number, test.labels[number])
        assert np.array_equal(unpack(found["image"]), test.images[number])
    assert explorer.request("GET", "/api/example/200").status == 400


def test_a_prediction_is_the_networks(explorer: Explorer, network: Network, digit: Any) -> None:
    for image in (digit, (digit / 255).astype(np.float32)):
        found = explorer.post("/api/predict", {"image": pack(image)})
        assert np.array_equal(unpack(found["probabilities"]), softmax(network.predict(image[None]))[0])
        assert np.array_equal(unpack(found["image"]), image)


@pytest.mark.parametrize("is_dark", [False, True])
def test_a_drawing_is_framed_as_a_photograph_is(explorer: Explorer, network: Network, is_dark: bool) -> None:
    path = Path(__file__).parents[1] / "docs/seven.png"
    drawn = np.asarray(Image.open(path).convert("L").resize((300, 280)))[None]
    drawn = 255 - drawn if is_dark else drawn
    found = explorer.post("/api/predict", {"drawing": pack(drawn)})
    image = mnist_style(drawn)
    assert np.array_equal(unpack(found["image"]), image)
    assert np.array_equal(unpack(found["probabilities"]), softmax(network.predict(image[None]))[0])


def test_a_drawing_for_other_images_is_fitted() -> None:
    exploration = exploration_of(adaptive(3, (3, 20, 24)), (3, 20, 24), 3)
    drawn = np.random.default_rng(0).integers(0, 256, (1, 90, 50), dtype=np.uint8)
    assert np.array_equal(exploration.fitted(drawn), fit_image(drawn, (3, 20, 24)))


def check_trace(found: Any, network: Network, image: Any, label: int) -> None:
    """Compare a trace with `lowered_cnn.trace`, and with a lowered network whose taps see what goes in."""
    expected = trace(network, image[None], [label])
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-6)
    for name, values in (("outputs", expected.outputs[0]), ("probabilities", softmax(expected.outputs)[0])):
        np.testing.assert_allclose(unpack(found[name]), values, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(unpack(found["dimage"]), expected.gradients["images"][0], rtol=1e-4, atol=1e-6)
    lowered, recorder = network.lower(1, training=False, wants_dx=True, fused=False), Recorder()
    with lowered.tapped(recorder):
        z = lowered.forward(image[None])
        lowered.backward(SoftmaxCrossEntropy().value_and_gradient(z, np.array([label]), 1.0)[1])
    ys = {name: unpack(stage["y"]) for name, stage in found["stages"].items()} | {"images": unpack(found["image"])}
    dys = {name: unpack(stage["dy"]) for name, stage in found["stages"].items()} | {"images": unpack(found["dimage"])}
    assert found["stages"].keys() == recorder.passages.keys()
    for name, seen in recorder.passages.items():
        stage = found["stages"][name]
        x = ys[stage["x"]] if isinstance(stage["x"], str) else unpack(stage["x"])
        dx = dys[stage["dx"]] if isinstance(stage["dx"], str) else unpack(stage["dx"])
        for values, wanted in ((x, seen.x), (ys[name], seen.y), (dx, seen.dx), (dys[name], seen.dy)):
            assert wanted is not None
            np.testing.assert_allclose(values, wanted[..., 0], rtol=1e-4, atol=1e-6)
    learned = [p.name for p in network.parameters.parameters if not p.statistic]
    assert list(found["gradients"]) == learned
    for name in learned:
        np.testing.assert_allclose(unpack(found["gradients"][name]), lowered.gradients[name], rtol=1e-4, atol=1e-6)


def test_a_trace_is_what_the_lowered_network_computes(explorer: Explorer, network: Network, digit: Any) -> None:
    for label in (7, 2):
        check_trace(explorer.post("/api/trace", {"image": pack(digit), "label": label}), network, digit, label)


def test_a_step_along_the_gradient_changes_the_loss_as_the_trace_says(
    explorer: Explorer, network: Network, digit: Any
) -> None:
    found = explorer.post("/api/trace", {"image": pack(digit), "label": 2})
    moved = load_copy(network)
    for name, gradient in found["gradients"].items():
        moved.parameters[name][...] -= 0.03 * unpack(gradient)
    after = next(each for each in found["after"] if each["rate"] == 0.03)
    z = moved.predict(digit[None])
    np.testing.assert_allclose(unpack(after["probabilities"]), softmax(z)[0], rtol=1e-4)
    assert after["loss"] < found["loss"]


def test_in_a_chain_only_the_outputs_and_their_gradients_are_sent(explorer: Explorer, digit: Any) -> None:
    stages = explorer.post("/api/trace", {"image": pack(digit), "label": 7})["stages"]
    names = list(stages)
    assert [stage["x"] for stage in stages.values()][1:3] == names[:2]
    assert [stage["dx"] for stage in stages.values()][1:3] == names[:2]
    assert (stages["conv1"]["x"], stages["conv1"]["dx"]) == ("images", "images")


def load_copy(network: Network) -> Network:
    copy = Network(network.model, network.input_shape)
    copy.parameters.copy_from(network.parameters)
    return copy


def test_a_nudge_agrees_with_the_gradient(explorer: Explorer, network: Network, digit: Any) -> None:
    traced = explorer.post("/api/trace", {"image": pack(digit), "label": 2})
    rng = np.random.default_rng(0)
    for name in ("conv1.weight", "batch_norm2.bias", "dense1.weight", "dense2.bias"):
        index = int(rng.integers(network.parameters[name].size))
        body = {"image": pack(digit), "label": 2, "parameter": name, "index": index}
        found = explorer.post("/api/nudge", body)
        assert found["agrees"]
        assert abs(found["gradient"] - found["difference"]) <= found["bound"]
        gradient = unpack(traced["gradients"][name]).reshape(-1)[index]
        assert found["gradient"] == pytest.approx(float(gradient), rel=1e-3, abs=1e-5)
        assert found["weight"] == pytest.approx(float(network.parameters[name].reshape(-1)[index]))
        offsets = [t for t, _ in found["curve"]]
        assert offsets == sorted(offsets)
        assert offsets[0] == -offsets[-1]
        assert dict(found["curve"])[0.0] == pytest.approx(traced["loss"], rel=1e-5)


def test_the_ledger_is_that_of_a_shard_with_times(explorer: Explorer, network: Network) -> None:
    found = explorer.get("/api/ledger")
    ledger = summary(network, found["shard_size"])
    assert found["batch"] == found["shard_size"] == 16
    assert found["batch_size"] == 32
    for row, expected in zip(found["rows"], ledger.rows, strict=True):
        assert (row["name"], tuple(row["output_shape"]), row["bytes"]) == (
            expected.name,
            expected.output_shape,
            expected.bytes,
        )
        assert sum(product["flops"] for product in row["products"]) == expected.flops
        assert row["forward_seconds"] > 0
        assert 0 <= row["share"] < 10
    assert found["peak"] > 0
    assert [tree["workers"] for tree in found["tree"]] == [1, 2, 4]
    for tree in found["tree"]:
        assert sorted(shard for shards in tree["shards"] for shard in shards) == [0, 1]
    assert explorer.get("/api/ledger") == found  # it is measured once


def test_a_run_has_its_records(explorer: Explorer, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = explorer.get("/api/training?after=0")
    assert (found["state"], found["more"], found["norms"], found["steps"]) == ("idle", False, [], [36])
    assert [record["loss"] for record in found["records"]] == [line["loss"] for line in lines]
    assert [record["step"] for record in explorer.get("/api/training?after=30")["records"]] == list(range(31, 37))


def test_large_answers_are_compressed_for_who_can_read_them(explorer: Explorer) -> None:
    plain = explorer.request("GET", "/api/network")
    zipped = explorer.request("GET", "/api/network", headers={"Accept-Encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert plain.content == zipped.content
    assert int(zipped.headers["content-length"]) < int(plain.headers["content-length"])


def test_the_page_is_confined_and_comes_from_the_package(explorer: Explorer) -> None:
    page = explorer.request("GET", "/")
    folder = Path(__file__).parents[1] / "lowered_cnn/explore/static"
    assert page.content == (folder / "index.html").read_bytes()
    assert page.headers["content-type"].startswith("text/html")
    for answer in (page, explorer.request("GET", "/api/example/0"), explorer.request("GET", "/nothing")):
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
    script, style = (explorer.request("GET", f"/static/{name}") for name in ("app.js", "style.css"))
    assert style.content == (folder / "style.css").read_bytes()
    assert style.headers["content-type"].startswith("text/css")
    assert script.content.decode() == bundled(texts(), "app.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = explorer.request("GET", "/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static//etc/passwd",
        "/static/%2Fetc%2Fpasswd", "/static/index.html%00", "/static/", "/static", "/server.py", "/%ff%fe",
        "/static/..\\server.py", "//static/index.html", "/api", "/api/network/", "/api/example/", "/static/INDEX.HTML",
    ],
)  # fmt: skip
def test_no_path_reaches_the_file_system(explorer: Explorer, path: str) -> None:
    answer = explorer.request("GET", path)
    assert answer.status == 404
    assert answer.error


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_refused(explorer: Explorer, method: str) -> None:
    answer = explorer.request(method, "/api/predict")
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert answer.error


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:PORT", 200), ("localhost:PORT", 200), ("LocalHost", 200), ("127.0.0.1", 200),
        ("evil.example", 421), ("evil.example:PORT", 421), ("127.0.0.1.evil.example", 421), ("[::1]:PORT", 421),
        ("localhost.evil.example:PORT", 421), ("0.0.0.0:PORT", 421), ("127.0.0.2", 421), ("user@localhost", 421),
        ("", 421), ("2130706433", 421), ("localhost:PORT:1", 421), ("localhost:x", 421), ("localhost/", 421),
    ],
)  # fmt: skip
def test_only_our_own_host_is_served(explorer: Explorer, host: str, status: int) -> None:
    answer = explorer.request("GET", "/api/example/0", headers={"Host": host.replace("PORT", str(explorer.port))})
    assert answer.status == status
    assert status == 200 or answer.error


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:PORT", 200), ("http://localhost:PORT", 403), ("https://127.0.0.1:PORT", 403),
        ("http://127.0.0.1:1", 403), ("http://127.0.0.1", 403), ("http://evil.example", 403), ("null", 403), ("", 403),
    ],
)  # fmt: skip
def test_only_our_own_page_may_post(explorer: Explorer, digit: Any, origin: str, status: int) -> None:
    own = origin.replace("PORT", str(explorer.port))
    answer = explorer.send("/api/predict", {"image": pack(digit)}, Origin=own)
    assert answer.status == status
    assert status == 200 or answer.error


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_a_form_of_another_page_is_refused(explorer: Explorer, digit: Any, kind: str) -> None:
    body = json.dumps({"image": pack(digit)}).encode()
    answer = explorer.request("POST", "/api/predict", body, {"Content-Type": kind})
    assert answer.status == 415
    assert answer.error
    fine = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert explorer.request("POST", "/api/predict", body, fine).status == 200


def image_with(**changes: object) -> dict[str, Any]:
    return {"image": {**pack(np.zeros((1, 28, 28), np.uint8)), **changes}}


FLOATS = np.zeros((1, 28, 28), np.float32)
FAULTY: list[tuple[str, object]] = [
    ("predict", {}),
    ("predict", []),
    ("predict", None),
    ("predict", {"image": 3}),
    ("predict", {"image": {}}),
    ("predict", image_with(dtype="float64")),
    ("predict", image_with(dtype=["uint8"])),
    ("predict", image_with(shape=[28, 28])),
    ("predict", image_with(shape=[1, 28, -28])),
    ("predict", image_with(shape=[1, 28, 10**17])),
    ("predict", image_with(shape=[True, 28, 28])),
    ("predict", image_with(shape="1,28,28")),
    ("predict", image_with(data="!")),
    ("predict", image_with(data="AAAA")),
    ("predict", image_with(data=None)),
    ("predict", image_with(data="\ud800")),
    ("predict", image_with(more=1)),
    ("predict", {"image": pack(FLOATS + np.nan)}),
    ("predict", {"image": pack(FLOATS + np.inf)}),
    ("predict", {"image": pack(FLOATS + 1e30)}),
    ("predict", {"image": pack(FLOATS + 200)}),
    ("predict", {**image_with(), "drawing": pack(np.zeros((1, 9, 9), np.uint8))}),
    ("predict", {"drawing": pack(np.zeros((1, 9, 9), np.uint8))}),
    ("predict", {"drawing": pack(np.zeros((1, 513, 9), np.uint8))}),
    ("predict", {"drawing": pack(np.zeros((3, 9, 9), np.uint8))}),
    ("predict", {"drawing": pack(np.zeros((9, 9), np.uint8))}),
    ("predict", {"drawing": pack(np.zeros((1, 9, 9), np.float32))}),
    ("predict", {**image_with(), "step": 35}),
    ("predict", {**image_with(), "step": -1}),
    ("predict", {**image_with(), "step": 36.0}),
    ("predict", {**image_with(), "step": True}),
    ("predict", {**image_with(), "step": "36"}),
    ("predict", {**image_with(), "steps": 36}),
    ("trace", image_with()),
    ("trace", {**image_with(), "label": 10}),
    ("trace", {**image_with(), "label": -1}),
    ("trace", {**image_with(), "label": "7"}),
    ("trace", {**image_with(), "label": False}),
    ("nudge", {**image_with(), "label": 7, "parameter": "conv1.weight"}),
    ("nudge", {**image_with(), "label": 7, "parameter": "conv1.weight", "index": 200}),
    ("nudge", {**image_with(), "label": 7, "parameter": "conv9.weight", "index": 0}),
    ("nudge", {**image_with(), "label": 7, "parameter": ["conv1.weight"], "index": 0}),
    ("training", {}),
    ("training", {"action": "explode"}),
    ("training", {"action": None}),
    ("training", {"action": "start", "epochs": 0}),
    ("training", {"action": "start", "epochs": 21}),
    ("training", {"action": "start", "epochs": 1.5}),
    ("training", {"action": "start", "learning_rate": 0}),
    ("training", {"action": "start", "learning_rate": "fast"}),
    ("training", {"action": "start", "workers": 2}),
    ("training", {"action": "stop", "epochs": 1}),
    ("predict", b""),
    ("predict", b"{"),
    ("predict", b"\xff"),
    ("predict", '{"image": 1}'.encode("utf-16")),
    ("predict", b'{"step": NaN}'),
    ("predict", b'{"step": -Infinity}'),
    ("predict", b'{"step": 1e999}'),
    ("predict", b'{"step": ' + b"9" * 5000 + b"}"),
    ("predict", b'{"step": 1, "step": 2}'),
    ("predict", b'{"image": {"dtype": "uint8", "dtype": "uint8"}}'),
    ("predict", b"[" * 200_000),
    ("predict", b'{"a":' * 100_000),
    ("predict", b'{"image": 1} {}'),
]


@pytest.mark.parametrize(("address", "body"), FAULTY, ids=lambda each: str(each)[:50])
def test_what_is_wrong_is_said_in_one_line(explorer: Explorer, address: str, body: object) -> None:
    answer = explorer.send(f"/api/{address}", body)
    assert answer.status == 400
    assert 10 < len(answer.error) < 500


@pytest.mark.parametrize(
    "body", [b'{"a": 1e999}', b'{"a": [NaN]}', b'{"a": {"b": 1, "b": 1}}', b'{"a": -1%s}' % (b"0" * 18)]
)
def test_numbers_and_names_are_checked_wherever_they_are(body: bytes) -> None:
    with pytest.raises(InputError, match=r"^(body|request): expected (finite|whole) numbers|each name once"):
        Fields.of_body(body)


@pytest.mark.parametrize(
    "query",
    ["network?step=1", "network?step=x", "network?step=-1", "network?stop=1", "network?step=36&step=36", "ledger?a=1",
     "example/x", "example/-1", "example/0?number=1", "example/" + "9" * 5000, "training?after=-1", "training?after=a"],
)  # fmt: skip
def test_a_wrong_query_is_refused(explorer: Explorer, query: str) -> None:
    answer = explorer.request("GET", f"/api/{query}")
    assert answer.status == 400
    assert answer.error


def test_bodies_are_bounded_whether_their_length_is_told_or_not(explorer: Explorer) -> None:
    large = b" " * (2**20 + 1)
    assert explorer.send("/api/predict", large).status == 413
    assert explorer.send("/api/predict", large[1:]).status == 400
    connection = http.client.HTTPConnection(explorer.host, explorer.port, timeout=SECONDS)
    parts = (b" " * 2**16 for _ in range(17))
    connection.request("POST", "/api/predict", parts, {"Content-Type": "application/json"}, encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 413
    assert "1,048,576 bytes" in json.loads(response.read())["error"]
    connection.close()


def test_headers_are_bounded(explorer: Explorer) -> None:
    with socket.create_connection((explorer.host, explorer.port), timeout=SECONDS) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 2**17)
        assert client.recv(100).startswith(b"HTTP/1.1 400")


JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("image", "drawing", "label", "step", "parameter", "index", "action", "epochs")
ARRAYS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["uint8", "float32"]) | JSONS,
        "shape": st.lists(st.integers(-1, 40), max_size=4) | JSONS,
        "data": st.binary(max_size=60).map(lambda raw: json.dumps(raw.hex())) | JSONS,
    }
)
BODIES = st.dictionaries(st.sampled_from(NAMES), JSONS | ARRAYS | st.integers(-2, 12), max_size=5)
DRAWINGS = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([0.02, 0.5, 1.0]))


@given(st.sampled_from(POST[:3]), BODIES | st.binary(max_size=60))
@settings(max_examples=300)
def test_no_body_brings_the_server_down(explorer: Explorer, address: str, body: object) -> None:
    answer = explorer.send(f"/api/{address}", body if isinstance(body, bytes) else json.dumps(body).encode())
    assert answer.status in (200, 400)
    assert answer.status == 200 or answer.error


@given(DRAWINGS)
@settings(max_examples=150)
def test_any_drawing_is_classified_or_refused(explorer: Explorer, drawn: tuple[int, int, int, float]) -> None:
    height, width, seed, share = drawn
    rng = np.random.default_rng(seed)
    pixels = np.where(rng.random((1, height, width)) < share, rng.integers(0, 256, (1, height, width)), 0)
    answer = explorer.send("/api/predict", {"drawing": pack(pixels.astype(np.uint8))})
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert unpack(answer.json["probabilities"]).sum() == pytest.approx(1, abs=1e-5)
    else:
        assert "contrast" in answer.error


LINES = st.text(string.printable, max_size=40).map(lambda text: text.encode("ascii"))


@given(st.lists(LINES, max_size=6))
@settings(max_examples=150)
def test_no_request_brings_the_server_down(explorer: Explorer, lines: list[bytes]) -> None:
    """Whatever comes in instead of a request, the connection ends, without an error of the server's."""
    with socket.create_connection((explorer.host, explorer.port), timeout=SECONDS) as client:
        client.sendall(b"POST /api/predict HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        found = client.recv(2**16)
    assert not found or 400 <= int(found.split()[1]) < 500


def test_the_server_is_well_after_all_that(explorer: Explorer, digit: Any) -> None:
    assert explorer.post("/api/predict", {"image": pack(digit)})
    assert explorer.process.poll() is None


def test_many_clients_at_once_are_answered_rightly_or_refused(explorer: Explorer, network: Network) -> None:
    images = load_mnist().test.images[:200]
    expected = softmax(np.concatenate([network.predict(image[None]) for image in images]))

    def client(number: int) -> list[tuple[int, bool]]:
        answers = []
        for _ in range(3):
            answer = explorer.send("/api/predict", {"image": pack(images[number])})
            right = answer.status != 200 or np.array_equal(unpack(answer.json["probabilities"]), expected[number])
            if answer.status != 200:
                assert answer.headers["retry-after"]
            answers.append((answer.status, bool(right)))
        return answers

    with ThreadPoolExecutor(200) as clients:
        found = [each for answers in clients.map(client, range(200)) for each in answers]
    assert Counter(right for _, right in found) == {True: 600}
    statuses = Counter(status for status, _ in found)
    assert statuses.keys() <= {200, 503}
    assert statuses[200] > 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_server_and_its_training(run: Path, number: signal.Signals, code: int) -> None:
    with exploring() as explorer:
        explorer.post("/api/training", {"action": "start", "epochs": 20})
        explorer.process.send_signal(number)
        out, err = explorer.process.communicate(timeout=SECONDS)
    assert (explorer.process.returncode, out, err) == (code, "", "")


@pytest.mark.parametrize("host", ["::1", "0.0.0.0"])
def test_an_address_is_ours_if_the_connection_comes_in_on_it(run: Path, host: str) -> None:
    with exploring(run, "--host", host) as explorer:
        reached = {"::1": "::1", "0.0.0.0": "127.0.0.1"}[host]
        at = replace(explorer, host=reached)
        assert at.request("GET", "/").status == 200
        for other in ("evil.example", "10.1.2.3", "[::2]"):
            assert at.request("GET", "/", headers={"Host": f"{other}:{at.port}"}).status == 421


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_who_does_not_go_on_is_not_waited_for(explorer: Explorer, begun: bytes) -> None:
    with socket.create_connection((explorer.host, explorer.port), timeout=SECONDS) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + begun)
        while client.recv(2**16):
            pass


def test_a_body_that_does_not_come_is_not_waited_for(explorer: Explorer) -> None:
    head = (
        b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    with socket.create_connection((explorer.host, explorer.port), timeout=SECONDS) as client:
        client.sendall(head)
        assert client.recv(2**16).startswith(b"HTTP/1.1 408")


def failure(*arguments: str | Path) -> str:
    """Run a command that must fail in one line, which is returned."""
    command = [sys.executable, "-m", "lowered_cnn.cli", "explore", *map(str, arguments), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    return done.stderr


def test_a_port_that_is_taken_is_said_in_one_line(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "a free port" in failure(run, "--port", str(taken.getsockname()[1]))
    assert "name or an address" in failure(run, "--host", "no.such.host.invalid")
    assert "without config.json" in failure(run.parent)


def test_without_a_port_another_free_one_is_found() -> None:
    from lowered_cnn.explore.server import listen

    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert first.getsockname() != second.getsockname()


def test_the_missing_extra_is_named(run: Path) -> None:
    hide = "import sys; sys.modules['uvicorn'] = None; from lowered_cnn.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", hide, "explore", str(run), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    line = "explore: expected Starlette and uvicorn (pip install 'lowered-cnn[explore]'), got no module named uvicorn"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"lowered-cnn explore: {line}\n")


BRANCH = Sequential(Conv2D(4, 3, padding="same"), BatchNorm(), ReLU())
RESIDUAL = Sequential(Conv2D(4, 3, padding="same"), Residual(BRANCH), Flatten(), Dropout(), Dense(2))


@pytest.mark.parametrize(
    ("model", "shape", "classes"),
    [
        (deep(4), (1, 28, 28), 4),
        (adaptive(3, (3, 20, 24)), (3, 20, 24), 3),
        (RESIDUAL, (3, 9, 9), 2),
        *((MODELS[name](5), (1, 28, 28), 5) for name in ("lenet5", "notebook")),
    ],
    ids=["deep", "adaptive", "residual", "lenet5", "notebook"],
)
def test_networks_of_all_kinds_are_explored(model: Sequential, shape: Shape, classes: int) -> None:
    exploration = exploration_of(model, shape, classes)
    description: Any = exploration.description()
    assert [stage["name"] for stage in description["stages"]] == [row.name for row in summary(exploration.network).rows]
    image = exploration.test_image(1)
    check_trace(exploration.trace(image, 1), exploration.network, image, 1)
    name = next(p.name for p in exploration.network.parameters.parameters if not p.statistic)
    assert exploration.nudge(image, 1, name, 0)["agrees"]
    json.dumps([description, exploration.ledger()])


def test_a_layer_says_what_it_computes_even_if_its_docstring_refers_to_its_base() -> None:
    layers = Sequential(Conv2D(2, 3), ConvTranspose2D(1, 3), Flatten(), Dense(3))
    stages: Any = described(Network(layers, (1, 8, 8)), "abc")["stages"]
    for stage, kind in zip(stages, (Conv, ConvTranspose, Flatten, Dense), strict=True):
        assert stage["equation"] == str(kind.__doc__).partition("\n")[0]


@pytest.mark.parametrize(
    ("model", "shape", "line"),
    [
        (Sequential(Dense(10)), (6,), "explore: network: expected one for images"),
        (Sequential(Flatten(), Dense(10)), (2, 4, 4), "explore: network: expected one for images"),
        (Sequential(Flatten(), Dense(9)), (1, 4, 4), "explore: network: expected an output for each class"),
        (Sequential(Flatten(), Dense(10), Softmax()), (1, 4, 4), "loss: expected a network without Softmax"),
        (Sequential(Conv2D(64, 3, padding="same"), Flatten(), Dense(10)), (3, 224, 224), "8,000,000 numbers"),
    ],
)
def test_a_network_that_the_page_cannot_show_is_refused(model: Sequential, shape: Shape, line: str) -> None:
    with pytest.raises(InputError) as refusal:
        exploration_of(model, shape)
    assert line in str(refusal.value)
