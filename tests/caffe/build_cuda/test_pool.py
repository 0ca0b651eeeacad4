"""Compilers in parallel: reuse, failures, interruption."""

from __future__ import annotations

import os

import pytest

from irv2caffe.caffe.build_cuda.pool import Job, run_jobs
from irv2caffe.errors import InstallError

ENV = {"PATH": os.environ["PATH"]}


def shell(script, output):
    """A job: a shell script whose $2 is the output, as ``-o OUTPUT`` is appended."""
    return Job(("sh", "-c", script, "sh"), output, output.name)


def test_finished_outputs_are_used_again(tmp_path):
    marks = tmp_path / "marks"
    jobs = [shell(f"echo x >> {marks}; echo made > $2", tmp_path / f"o/{n}.o") for n in range(5)]
    seen = []
    run_jobs(jobs, ENV, lambda *numbers: seen.append(numbers), workers=2)
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    (tmp_path / "o/3.o").unlink()
    run_jobs(jobs, ENV, workers=2)
    assert marks.read_text().count("x") == 6
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [f"{n}.o" for n in range(5)]


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ("echo 'a.cpp:1: error: no such thing' >&2; exit 1", "a.cpp:1: error: no such", ""),
        ("echo half > $2; kill -KILL $$", "was killed while compiling bad.o", "--jobs"),
        (
            "echo 'g++: fatal error: Killed signal terminated program cc1plus' >&2; exit 1",
            "was killed",
            "memory",
        ),
        (
            "echo 'cannot write: No space left on device' >&2; exit 1",
            "the disk is full while compiling bad.o",
            "another disk",
        ),
    ],
)
def test_first_failure_ends_the_others(tmp_path, script, message, hint):
    endless = [shell("exec sleep 600", tmp_path / f"{n}.o") for n in range(3)]
    good = shell("echo made > $2", tmp_path / "good.o")
    script = f"until [ -e {good.output} ]; do sleep 0.01; done; {script}"
    with pytest.raises(InstallError) as caught:
        run_jobs([good, shell(script, tmp_path / "bad.o"), *endless], ENV, workers=2)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["good.o"]  # kept for the next run


def test_interrupted(tmp_path):
    """An exception in the caller, as Ctrl-C, ends the running programs."""

    def update(done, total):
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    job = shell(
        f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 600",
        tmp_path / "a.o",
    )
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], ENV, update, workers=1)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (tmp_path / "a.o").exists()


def test_a_missing_compiler(tmp_path):
    with pytest.raises(OSError, match="no-such-compiler"):
        run_jobs([Job(("/no-such-compiler",), tmp_path / "a.o", "a")], ENV, workers=1)
