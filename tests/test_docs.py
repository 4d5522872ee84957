"""The documents: every command and every block of code in them runs, in the order in which a reader meets them."""

import inspect
import os
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
    assert {block[1] for block in found} <= {"sh", "python", "text"}
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
    assert {"training.Ranks", "training.join_ranks"} <= shown
    assert {"interop.onnx.to_onnx", "interop.sklearn.CNNClassifier.partial_fit"} <= shown
    assert not re.search(r"<(script|link|img)[^>]*https?://", pages), "a page that needs the network"


def test_every_public_name_has_a_docstring() -> None:
    for name in lowered_cnn.__all__:
        value = getattr(lowered_cnn, name)
        assert value.__doc__, name
        for member, function in vars(value).items() if isinstance(value, type) else ():
            if callable(function) and not member.startswith("_"):
                assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"
