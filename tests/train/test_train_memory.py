"""Memory that a training needs, against the limits of machine, container and shell."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from helpers.training_jobs import make_databases, write_job

from irv2caffe.train.plan.estimate import estimate
from irv2caffe.train.plan.job import read_job
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.plan.memory_room import MemoryRoom, cgroup_room, memory_room
from irv2caffe.train.plan.plan import TrainOptions
from irv2caffe.train.plan.recipe import build_recipe
from irv2caffe.train.run_dir.failure_causes import cause_of, cause_of_exit

GB = 1 << 30


def group(folder, limit, used, cache, *, old=False):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    names = names if old else ("memory.max", "memory.current", "inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\nunevictable 0\n")


def test_the_narrowest_of_all_groups_above_counts(tmp_path):
    group(tmp_path / "job/step", "max", 3 * GB, 0)
    group(tmp_path / "job", 8 * GB, 5 * GB, 2 * GB)  # two of five are files that can go
    assert cgroup_room(tmp_path, "0::/job/step\n") == 5 * GB
    group(tmp_path / "job/step", 4 * GB, 3 * GB, 0)
    assert cgroup_room(tmp_path, "0::/job/step\n") == 1 * GB
    group(tmp_path / "job/step", 4 * GB, 5 * GB, 0)
    assert cgroup_room(tmp_path, "0::/job/step\n") == 0


def test_a_container_whose_group_has_another_name_outside(tmp_path):
    group(tmp_path / "memory", 6 * GB, 1 * GB, 0, old=True)
    assert cgroup_room(tmp_path, "5:memory:/docker/0123\n2:cpu:/x\n0::/\n") == 5 * GB
    group(tmp_path / "memory", (1 << 63) - 4096, 1 * GB, 0, old=True)  # how it says: no limit
    assert cgroup_room(tmp_path, "5:memory:/docker/0123\n") is None
    assert cgroup_room(tmp_path / "nowhere", "0::/x\nnonsense") is None


def test_what_this_machine_has():
    room = memory_room()
    assert room.num_bytes > 0
    assert room.where in {"this machine", "this container or job", "this shell"}


@pytest.mark.slow
def test_the_batch_that_would_fit_is_named(caffe_engine, root, tmp_path, monkeypatch):
    room = MemoryRoom(3 * GB, "this machine", "of memory available")
    monkeypatch.setattr("irv2caffe.train.plan.memory_check.memory_room", lambda: room)
    solver = write_job(root, tmp_path, iter_size=2)
    told = {"batch_size": 2_000_000}
    plan = make_plan(solver, caffe_engine, TrainOptions(given=told))
    (error,) = plan.problems
    assert "the training takes about" in error.message
    batch, size = (int(word) for word in error.hint.split() if word.isdecimal())
    assert batch * size == 4_000_000
    fits = make_plan(
        solver, caffe_engine, TrainOptions(given={"batch_size": batch, "iter_size": size})
    )
    assert fits.problems == ()
    assert fits.effective_batch == plan.effective_batch
    assert not any("memory" in note for note in fits.notes)
    anyway = make_plan(solver, caffe_engine, TrainOptions(given=told, ignore_findings=True))
    assert anyway.problems == ()
    assert any("the training takes about" in note for note in anyway.notes)


@pytest.mark.slow
def test_a_recipe_takes_the_batch_that_fits(caffe_engine, tmp_path, monkeypatch):
    """As many images per update, so that its learning rate still fits; what is told stays."""
    make_databases(tmp_path, size=80)
    names = {"train_lmdb": "train_lmdb", "val_lmdb": "val_lmdb"}
    given = {name: str(tmp_path / folder) for name, folder in names.items()}
    given |= {"variant": "small75", "width": 0.1}

    def build(room_bytes, **more):
        room = MemoryRoom(room_bytes, "this machine", "of memory available")
        monkeypatch.setattr("irv2caffe.train.plan.memory_check.memory_room", lambda: room)
        out = tmp_path / f"{room_bytes}{'-'.join(more)}"
        built = build_recipe(out, "paper", {**given, **more}, caffe_engine, "none")
        return built, {value.name: (value.value, value.source) for value in built.values}

    built, values = build(1 << 40)
    assert values["batch_size"] == (32, "recipe paper")
    assert not any("takes about" in note for note in built.notes)
    need = estimate(read_job(built.net.solver, []), ()).on_device(0, "bvlc")
    built, values = build(need // 2)
    assert values["batch_size"][0] in {4, 8, 16}
    assert values["batch_size"][0] * values["iter_size"][0] == 32
    assert values["batch_size"][1].startswith("derived: this machine has ")
    assert built.net.schedule.effective_batch == 32
    fits = estimate(read_job(built.net.solver, []), ())
    assert fits.on_device(0, "bvlc") + fits.model_bytes <= 0.8 * (need // 2)
    _, values = build(need // 2, batch_size=32)
    assert values["batch_size"] == (32, "command line")
    _, values = build(need // 1000)  # nothing would fit: the plan says so
    assert values["batch_size"] == (32, "recipe paper")


@pytest.mark.slow
def test_the_shell_s_limit_counts(caffe, root, tmp_path):
    solver = write_job(root, tmp_path)
    command = [sys.executable, "-m", "irv2caffe", "train", "--solver", str(solver), "--dry-run"]

    def narrow():
        resource.setrlimit(resource.RLIMIT_AS, (3 * GB, 3 * GB))

    done = subprocess.run(
        [*command, "--batch-size", "1000000"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=narrow,
    )
    assert done.returncode == 1
    assert (
        "this shell has 3.22 GB of address space allowed (ulimit -v)" in done.stdout + done.stderr
    )


@pytest.mark.parametrize(
    "words",
    [
        "Check failed: *ptr host allocation of size 1843200000 failed",
        "terminate called after throwing an instance of 'std::bad_alloc' what():  std::bad_alloc",
        "Check failed: error == cudaSuccess (2 vs. 0)  out of memory",
    ],
)
def test_caffe_s_words_for_no_memory(words):
    advice = cause_of(words)
    assert advice.why == "not enough memory"
    assert "--batch-size" in advice.hint


def test_the_kernel_s_way_to_say_it():
    advice = cause_of_exit(-9)
    assert "dmesg" in advice.hint
    assert "--batch-size" in advice.hint
    assert "--batch-size" not in cause_of_exit(-11).hint
