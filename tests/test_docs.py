"""The documents: every command and every block of code in them runs, in the order in which a reader meets them."""

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import lowered_cnn
from lowered_cnn.cli import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for path in ROOT.rglob("docs/**/*.md") if path.parent.name != "api")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
"""A block's language, its text, and the block of text right behind it: what it prints."""
MARK = "--- end of the block ---\n"


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


INSTALLS = ("python3 -m venv", ".venv/bin/", ". .venv/bin/activate", "pip install")
"""Commands with these beginnings are run by .ci/run, in the fresh environment that they make."""


def blocks(document: Path, language: str) -> list[tuple[str, str]]:
    """Return the code of each block, and what it prints, or nothing."""
    return [(code, printed) for kind, code, printed in BLOCK.findall(document.read_text()) if kind == language]


def commands(code: str) -> list[str]:
    return [line for line in code.splitlines() if line and not line.startswith(INSTALLS)]


def told_in_comments(code: str) -> str:
    """Return what the comments behind the prints of a block say that they print."""
    return "".join(f"{told}\n" for told in re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE))


def without_measures(text: str) -> str:
    """Return a text without what differs between machines: shares of a bound, times, speeds, trained losses."""
    text = re.sub(r"(?<=loss )\d+\.\d+|\d[\d,.]*(?=%| s\b| images/s)", "#", text)
    return re.sub(r" +", " ", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_block_has_a_language_that_is_run(document: Path) -> None:
    text = document.read_text()
    found = list(BLOCK.finditer(text))
    assert {block[1] for block in found} <= {"sh", "python", "text", "math"}
    fences = re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)
    assert len(fences) == sum(2 if block[3] is None else 4 for block in found), "a block that is not found"


@pytest.mark.slow
@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path, "python")], ids=name)
def test_code_runs_and_prints_what_the_document_says(document: Path, tmp_path: Path) -> None:
    """The blocks of a document are one program; a block of text behind one, or its comments, say what it prints."""
    program = "".join(f"{code}\nprint({MARK!r}, end='')\n" for code, _ in blocks(document, "python"))
    if "import torch" in program:
        pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch==2.13.0)")
    script = tmp_path / "blocks.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, "-W", "error", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(MARK)[:-1]
    for (code, text), got in zip(blocks(document, "python"), printed, strict=True):
        assert without_measures(got) == without_measures(text or told_in_comments(code)), code


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if any(commands(code) for code, _ in blocks(path, "sh"))], ids=name
)
def test_commands_run_as_they_stand(document: Path, tmp_path: Path) -> None:
    for folder in ("docs", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for code, text in blocks(document, "sh"):
        printed = "".join(output(line, tmp_path) for line in commands(code))
        if text:
            assert without_measures(printed) == without_measures(text), code


def output(line: str, folder: Path) -> str:
    """Run one command, and return what it says."""
    program, *arguments = shlex.split(line, comments=True)
    programs = Path(sys.executable).parent
    command, path = [str(programs / program), *arguments], f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}  # where mpiexec looks for what it starts
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}"
    if "train" in line and "--resume" not in line:  # which may have nothing left to do
        accuracy = re.search(r"test accuracy (\d+\.\d+)%", done.stdout)
        assert accuracy
        assert float(accuracy[1]) >= 98.7, line
    return done.stdout


def test_the_home_page_and_the_readme_agree() -> None:
    home, readme = (ROOT / "docs" / "index.md").read_text(), (ROOT / "README.md").read_text()
    figures = re.findall(r"\d[\d.]* (?:s|MB)\b|(?<=of )\d+(?= \|)", home)
    assert figures == ["3.9 s", "72 MB", "170", "11.4 s", "742 MB"]
    assert all(re.search(rf"\b{re.escape(figure)}\b", readme) for figure in figures)


def test_the_ledger_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"`lowered-cnn (summary [^`]*)`.*?```text\n(.*?)```", readme, re.DOTALL)
    assert shown
    assert main(shown[1].split()) == 0
    assert capsys.readouterr().out == shown[2]


def test_the_install_commands_are_those_that_ci_runs() -> None:
    """.ci/run takes them from the README, between the marks, so that they cannot differ."""
    readme = (ROOT / "README.md").read_text()
    marked = re.findall(r"<!-- ci -->\n```sh\n(.*?)```\n<!-- /ci -->", readme, re.DOTALL)
    assert len(marked) == 2
    assert all(line.startswith(INSTALLS) for text in marked for line in text.splitlines())
    assert "<!-- ci -->" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_equation_becomes_mathml(document: Path) -> None:
    """What the converter does not know it leaves as it is, with a backslash."""
    typeset = pytest.importorskip("typeset", reason="latex2mathml is not installed (pip install 'lowered-cnn[docs]')")
    text = document.read_text()
    displayed = [typeset.display(source) for source, _ in blocks(document, "math")]
    inline = [typeset.on_page_content(f"$<code>{source}</code>$") for source in re.findall(r"\$`(.+?)`\$", text)]
    for equation in displayed + inline:
        assert ElementTree.fromstring(equation).find("{http://www.w3.org/1998/Math/MathML}math") is not None
        assert "\\" not in equation


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, as it is built in earnest: silently."""
    pytest.importorskip("mkdocstrings", reason="mkdocs is not installed (pip install 'lowered-cnn[docs]')")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_the_reference_is_built_and_has_every_public_name(site: Path) -> None:
    pages = "".join(page.read_text() for page in site.glob("api/*.html"))
    shown = set(re.findall(r'id="lowered_cnn\.([\w.]+)"', pages))
    assert set(lowered_cnn.__all__) <= shown
    assert {"training.Ranks", "training.join_ranks"} <= shown
    assert {"interop.onnx.to_onnx", "interop.sklearn.CNNClassifier.partial_fit"} <= shown


class Loads(HTMLParser):
    """Collects what a page has the browser load: everything but the links that a reader follows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for key, value in attributes:
            if key in ("src", "srcset", "data", "poster") or (key == "href" and tag != "a"):
                self.found.append(value or "")
            elif key == "style":
                self.found += loaded_by_css(value or "")


def loaded_by_css(text: str) -> list[str]:
    found = re.findall(r"""url\(\s*["']?([^"')]*)|@import\s*["']([^"']*)""", text)
    return [address or imported for address, imported in found]


def outside(addresses: list[str]) -> list[str]:
    return [address for address in addresses if re.match(r"(?!data:)[a-z+.-]+:|//", address.strip())]


@pytest.mark.slow
def test_the_site_needs_nothing_from_the_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
        assert outside(Loads(text).found + loaded_by_css(styles)) == [], page
    for sheet in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        assert outside(loaded_by_css(sheet.read_text())) == [], sheet


@pytest.mark.parametrize(
    "page",
    [
        '<link href="https://a.example/b.css">',
        '<img src="//a.example/b.png">',
        '<p style="background: url(http://a.example/b.png)">',
        '<script src=" https://a.example/b.js"></script>',
    ],
)
def test_a_planted_address_outside_is_found(page: str) -> None:
    assert outside(Loads(page).found)
    assert not outside(Loads('<a href="https://a.example"></a><img src="data:,"><img src="../b.png">').found)
    assert outside(loaded_by_css('@import "https://a.example/b.css"; a { background: url( "//a.example/c" ) }'))


@pytest.mark.slow
def test_the_search_works_in_pages_opened_from_files(site: Path) -> None:
    browser = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install playwright)")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("Chromium is not installed")
    with browser.sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto((site / "book" / "s1.html").as_uri())
        page.click(".md-search__input")
        page.keyboard.type("adjoint")
        page.wait_for_selector(".md-search-result__link")
        assert "s4.html" in str(page.get_attribute(".md-search-result__link", "href"))
    assert all(request.startswith(("file:", "data:")) for request in requests)


def test_every_public_name_has_a_docstring() -> None:
    for name in lowered_cnn.__all__:
        value = getattr(lowered_cnn, name)
        assert value.__doc__, name
        for member, function in vars(value).items() if isinstance(value, type) else ():
            if callable(function) and not member.startswith("_"):
                assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"
