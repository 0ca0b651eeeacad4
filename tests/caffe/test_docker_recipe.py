"""examples/docker: its commands are commands of this program, its files are there.

No docker is run.
"""

from __future__ import annotations

import re
import shlex

import pytest
from helpers.paths import ROOT

from irv2caffe.caffe.driver import LIBRARIES
from irv2caffe.cli.main import cli

FOLDER = ROOT / "examples/docker"
INSTRUCTIONS = {"FROM", "ARG", "RUN", "COPY", "ENV", "WORKDIR", "CMD"}


def instructions():
    """(instruction, rest) of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def of(kind):
    return [rest for name, rest in instructions() if name == kind]


def commands():
    """The calls of this program in the Dockerfile and the README, without what is quoted."""
    given = dict(line.split("=", 1) for line in of("ARG"))
    runs = " && ".join(of("RUN"))
    shell = re.findall(r"```sh\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    text = f"{runs}\n{''.join(shell)}".replace("\\\n", " ")
    for name, value in given.items():
        text = text.replace(f'"${name}"', value)
    text = re.sub(r"^docker run .*? irv2caffe(?=\s)", "docker ", text, flags=re.MULTILINE)
    found = re.findall(r"(?:^|[&\s])irv2caffe ((?:install-caffe|train)\b[^&#\n]*)", text)
    return [shlex.split(words) for words in found]


def test_instructions_and_files():
    names = [name for name, _ in instructions()]
    assert set(names) == INSTRUCTIONS
    assert names[0] == "FROM"
    assert of("FROM") == ["debian:12-slim"]  # nobody's image with CUDA in it
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    for line in of("COPY"):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


def test_commands_are_known():
    found = commands()
    assert {words[0] for words in found} == {"install-caffe", "train"}
    for name, *words in found:
        cli.commands[name].make_context(name, list(words), resilient_parsing=False)


@pytest.mark.parametrize("value", ["--cudnn", "--no-cudnn"])
def test_arguments_of_the_build(value):
    install = next(words for words in commands() if words[0] == "install-caffe")
    default = dict(line.split("=", 1) for line in of("ARG"))["CUDNN"]
    words = [value if word == default else word for word in install[1:]]
    context = cli.commands["install-caffe"].make_context("install-caffe", words)
    assert context.params["cudnn"] is (value == "--cudnn")
    assert context.params["cuda"] == "12"
    assert context.params["keep_build"]
    assert str(context.params["prefix"]) in {line.partition("=")[2] for line in of("ENV")}


def test_links_to_the_driver():
    linked = next(line for line in of("RUN") if "/drv" in line)
    assert set(re.findall(r"lib\w[\w.-]*\.so[.\d]*", linked)) == set(LIBRARIES)


def test_caffe_is_a_program_that_reaches_ours():
    script = next(line for line in of("RUN") if line.startswith("printf"))
    assert 'exec irv2caffe caffe "$@"' in script
    assert "> /usr/local/bin/caffe" in script
