"""The documents: every command and every block of code in them runs, in the order in which a reader meets them."""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lowered_cnn
from lowered_cnn.cli import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLS = ("python3 -m venv", ".venv/bin/", ". .venv/bin/activate", "pip install")
"""Commands with these beginnings are run by .ci/run, in the fresh environment that they make."""


def blocks(document: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(document.read_text()) if kind == language]


def commands(document: Path) -> list[str]:
    lines = [line for text in blocks(document, "sh") for line in text.splitlines() if line]
    return [line for line in lines if not line.startswith(INSTALLS)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_has_a_language_that_is_run(document: Path) -> None:
    assert {kind for kind, _ in BLOCK.findall(document.read_text())} <= {"sh", "python", "text"}


@pytest.mark.slow
@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path, "python")], ids=lambda path: path.name)
def test_code_runs_and_prints_what_the_document_says(document: Path, tmp_path: Path) -> None:
    """The blocks of a document are one program; a comment behind a print says what it prints."""
    program = "\n".join(blocks(document, "python"))
    script = tmp_path / "blocks.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, "-W", "error", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = re.findall(r"^print\(.*\)  # (.+)$", program, re.MULTILINE)
    assert done.stdout.splitlines() == expected


@pytest.mark.slow
@pytest.mark.parametrize("document", [path for path in DOCUMENTS if commands(path)], ids=lambda path: path.name)
def test_commands_run_as_they_stand(document: Path, tmp_path: Path) -> None:
    for folder in ("docs", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    binaries = Path(sys.executable).parent
    for line in commands(document):
        program, *arguments = shlex.split(line, comments=True)
        done = subprocess.run([binaries / program, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        accuracy = re.search(r"test accuracy (\d+\.\d+)%", done.stdout)
        if "train" in line:
            assert accuracy
            assert float(accuracy[1]) >= 98.7, line


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


@pytest.mark.slow
def test_the_reference_is_built_and_has_every_public_name(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="mkdocs is not installed (pip install 'lowered-cnn[docs]')")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = "".join(page.read_text() for page in tmp_path.glob("api/*.html"))
    shown = set(re.findall(r'id="lowered_cnn\.([\w.]+)"', pages))
    assert set(lowered_cnn.__all__) <= shown
    assert {"interop.onnx.to_onnx", "interop.sklearn.CNNClassifier.partial_fit"} <= shown
    assert not re.search(r"<(script|link|img)[^>]*https?://", pages), "a page that needs the network"


def test_every_public_name_has_a_docstring() -> None:
    for name in lowered_cnn.__all__:
        value = getattr(lowered_cnn, name)
        assert value.__doc__, name
        for member, function in vars(value).items() if isinstance(value, type) else ():
            if callable(function) and not member.startswith("_"):
                assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"
