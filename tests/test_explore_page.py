"""The page as one file: its modules joined, nothing loaded from anywhere, and in it what the server would answer."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorers import exploring, unpack
from hypothesis import given
from hypothesis import strategies as st

from lowered_cnn import InputError, load, load_mnist, softmax
from lowered_cnn.cli import main
from lowered_cnn.data import mnist_style, read_image
from lowered_cnn.explore.bundle import bundled
from lowered_cnn.explore.page import offline, texts

ROOT = Path(__file__).parents[1]
INDEX = """<!doctype html><html><head><title>t</title>
<link rel="stylesheet" href="static/style.css"><script type="module" src="static/app.js"></script>
</head><body></body></html>"""


class Parts(HTMLParser):
    """The text of each element by its tag, with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(("", {}, ""))  # what follows is not in the element

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = tag, attributes, text + data

    def only(self, tag: str, **attributes: str) -> tuple[dict[str, str | None], str]:
        matching = [(own, text) for name, own, text in self.found if name == tag and attributes.items() <= own.items()]
        assert len(matching) == 1
        return matching[0]


def contents(page: bytes) -> Any:
    """Check that a page allows its own style and script alone, and return the JSON in it."""
    parts = Parts(page.decode())
    policy, _ = parts.only("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(part.strip().partition(" ")[::2] for part in str(policy["content"]).split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "connect-src" not in rules
    assert rules["img-src"] == "data:"
    assert rules["script-src"] == hashed(parts.only("script", type="module")[1])
    assert rules["style-src"] == hashed(parts.only("style")[1])
    attributes = [value for _, own, _ in parts.found for name, value in own.items() if name in ("src", "href")]
    assert all(str(value).startswith(("#", "data:")) for value in attributes)
    return json.loads(parts.only("script", type="application/json")[1])


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.slow
def test_a_saved_page_has_what_the_server_answers(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert main(["explore", str(run), "--save", str(path)]) == 0
    page = path.read_bytes()
    assert len(page) < 3_000_000
    saved, test = contents(page), load_mnist().test
    numbers = [example["number"] for example in saved["examples"]]
    assert len(set(numbers)) == 3
    with exploring(run) as explorer:
        assert saved["network"] == {**explorer.get("/api/network"), "saved": True}
        for place, number in enumerate(numbers):
            example = explorer.get(f"/api/example/{number}")
            assert example.items() <= saved["examples"][place].items()
            assert example["label"] == test.labels[number]
            body = {"image": example["image"], "label": example["label"]}
            assert saved["traces"][place] == explorer.post("/api/trace", body)
            for nudge in saved["nudges"][place]:
                again = {**body, "parameter": nudge["parameter"], "index": nudge["index"]}
                assert explorer.post("/api/nudge", again) == nudge
        assert saved["training"] == explorer.get("/api/training?after=0")
        assert saved["ledger"].keys() == explorer.get("/api/ledger").keys()
    best = [unpack(trace["probabilities"]).argmax() for trace in saved["traces"]]
    right = [example["label"] == found for example, found in zip(saved["examples"], best, strict=True)]
    assert right[0]
    assert not right[2]


def test_two_weights_of_each_parameter_are_nudged(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert main(["explore", str(run), "--save", str(path)]) == 0
    saved = contents(path.read_bytes())
    for traced, nudges in zip(saved["traces"], saved["nudges"], strict=True):
        for name, gradient in traced["gradients"].items():
            sizes = np.abs(unpack(gradient).reshape(-1))
            most, median = (sizes[nudge["index"]] for nudge in nudges if nudge["parameter"] == name)
            assert most == pytest.approx(sizes.max(), rel=1e-5)
            above = np.sort(sizes[sizes > 0])
            assert median == pytest.approx(above[len(above) // 2], rel=0.5)


def test_images_of_ones_own_are_labelled_as_the_network_takes_them(run: Path, tmp_path: Path) -> None:
    path, seven, second = tmp_path / "page.html", ROOT / "docs/seven.png", tmp_path / "<&'.png"
    shutil.copy(seven, second)
    assert main(["explore", str(run), "--save", str(path), str(seven), str(second)]) == 0
    saved, image = contents(path.read_bytes()), mnist_style(read_image(seven))
    probabilities = softmax(load(run / "model.safetensors").predict(image[None]))[0]
    assert [example["name"] for example in saved["examples"]] == ["seven.png", "<&'.png"]
    for example, found in zip(saved["examples"], saved["traces"], strict=True):
        assert np.array_equal(unpack(example["image"]), image)
        np.testing.assert_allclose(unpack(found["probabilities"]), probabilities, rtol=1e-5, atol=1e-7)
        assert example["label"] == probabilities.argmax()
        assert "number" not in example


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--save", "page.html"], "--save: expected a RUN"),
        (["RUN", "--save", "page.html", "no.png"], "no.png: expected a readable"),
        (["RUN", "--save", "."], "output: expected a file to write"),
        (["RUN", "--save", "no/page.html"], "no/page.html: expected a readable or writable file"),
        (["no.run", "--save", "page.html"], "RUN: expected a folder"),
    ],
)
def test_what_cannot_be_saved_is_said_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore", *(str(run) if each == "RUN" else each for each in arguments)]) == 2
    output = capsys.readouterr()
    assert line in output.err
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


@given(st.recursive(st.text() | st.sampled_from(["</script>", "<!--", "<script>", "]]>"]), st.lists))
def test_nothing_that_is_saved_ends_the_script(value: Any) -> None:
    files = {"index.html": INDEX, "style.css": "a { color: red }", "app.js": 'show("</p>");\n'}
    assert contents(offline(files, {"value": value})) == {"value": value}


def test_the_pages_own_modules_are_joined() -> None:
    script = bundled(texts(), "app.js")
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    node = shutil.which("node")
    if node:
        subprocess.run([node, "--check", "--input-type=module", "-"], input=script, text=True, check=True)


def test_the_package_comes_with_the_page() -> None:
    """A wheel has the files that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["lowered_cnn"]
    packaged = {path for pattern in patterns for path in (ROOT / "lowered_cnn").glob(pattern)}
    assert {path.name for path in packaged if path.parent.name == "static"} == texts().keys()


MODULES = {
    "main.js": 'import { b, C } from "./b.js";\nimport {\n  d,\n} from "./d.js";\n\nimport { e } from "./d.js";\n\n'
    "console.log(b(), new C().name, d, e());\n",
    "b.js": '// B\n\nimport { d } from "./d.js";\n\nconst inner = "b";\nconsole.log(inner);\n\n'
    'export function b() {\n  return inner + d;\n}\n\nexport class C {\n  name = "C";\n}\n',
    "d.js": 'export const d = 1;\nlet inner = 2;\nconsole.log("d");\nexport function e() {\n  return inner;\n}\n',
    "unused.js": "const unused = 3;\n",
}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_joined_modules_do_what_they_do_apart(tmp_path: Path) -> None:
    """Also if two have the same name for something of their own."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bundle.js").write_text(bundled(MODULES, "main.js"))
    apart, joined = (
        subprocess.run(["node", name], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        for name in ("main.js", "bundle.js")
    )
    assert joined == apart == "d\nb\nb1 C 1 2\n"


def test_modules_are_joined_after_what_they_import() -> None:
    script = bundled(MODULES, "main.js")
    assert re.findall(r'^\$modules\["(.*?)"\] = ', script, re.MULTILINE) == ["d.js", "b.js", "main.js"]
    assert 'const { b, C } = $modules["b.js"];\nconst { d, e } = $modules["d.js"];' in script
    assert "return { d, e };" in script
    assert "unused" not in script


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("b.js", 'import { d as x } from "./d.js";\n', "names that d.js exports, got d as x"),
        ("b.js", 'import * as d from "./d.js";\n', "imports such as"),
        ("b.js", 'import d from "./d.js";\n', "imports such as"),
        ("b.js", 'import "./d.js";\n', "imports such as"),
        ("b.js", 'import { d } from "https://example.org/d.js";\n', "imports such as"),
        ("b.js", 'import { d } from "../d.js";\n', "imports such as"),
        ("b.js", 'const d2 = await import("./d.js");\n', "imports such as"),
        ("b.js", "const here = import.meta.url;\n", "imports such as"),
        ("b.js", "export let b = 1;\n", "exports of functions"),
        ("b.js", "export default function b() {}\n", "exports of functions"),
        ("b.js", "export const b = 1;\n", "names that b.js exports, got C"),
        ("b.js", "function b() {}\nexport { b };\n", "exports of functions"),
        ("b.js", 'import { nothing } from "./d.js";\n', "names that d.js exports, got nothing"),
        ("b.js", 'import { d } from "./e.js";\n', "a module of the page, got no such file"),
        ("b.js", 'export const b = "</script>";\nexport class C {}\n', "imports such as"),
        ("d.js", 'import { b } from "./b.js";\nexport const d = b;\nexport class e {}\n', "imports without a circle"),
    ],
)
def test_modules_of_another_form_are_refused(name: str, text: str, line: str) -> None:
    if "names that b.js" not in line and name == "b.js" and "class C" not in text:
        text += "export const b = 1;\nexport class C {}\n"
    with pytest.raises(InputError) as refusal:
        bundled({**MODULES, name: text}, "main.js")
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    "index",
    [
        INDEX.replace("<head>", "<head lang=en>"),
        INDEX.replace("stylesheet", "icon"),
        INDEX.replace('type="module"', "defer"),
        INDEX.replace("<body>", '<body><img src="static/a.svg">'),
    ],
)
def test_a_page_of_another_form_is_refused(index: str) -> None:
    with pytest.raises(InputError, match=r"index\.html: expected"):
        offline({"index.html": index, "style.css": "", "app.js": ""}, None)
