"""Finding, installing and running Caffe."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import candidates, default_prefix, find_caffe
from irv2caffe.caffe.install import install_caffe
from irv2caffe.caffe.mirror import apt_entries, check_mirror, choose_mirror, known_mirror
from irv2caffe.caffe.verify import verify
from irv2caffe.errors import (
    CaffeNotFoundError,
    InstallError,
    OutputExistsError,
    UsageError,
)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A user on whose machine no Caffe is found."""
    monkeypatch.delenv("CAFFE_ROOT", raising=False)
    monkeypatch.delenv("IRV2CAFFE_MIRROR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    return tmp_path


def program(path, text="#!/bin/sh\nexit 0\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_order_of_the_places(nowhere, monkeypatch):
    with pytest.raises(CaffeNotFoundError) as caught:
        find_caffe()
    assert "install-caffe" in caught.value.hint
    runtime = nowhere / "data/irv2caffe/caffe-1.0"
    assert default_prefix() == runtime
    program(runtime / "usr/bin/caffe")
    program(runtime / "lib/x86_64-linux-gnu/ld-2.31.so")
    assert find_caffe().is_runtime
    on_path = program(nowhere / "path/caffe")
    assert find_caffe().tools == on_path.parent
    root = program(nowhere / "tree/build/tools/caffe").parent
    monkeypatch.setenv("CAFFE_ROOT", str(nowhere / "tree"))
    found = find_caffe()
    assert (found.tools, found.is_runtime) == (root, False)
    assert "CAFFE_ROOT" in found.reason
    other = program(nowhere / "other/bin/caffe")
    assert find_caffe(other).tools == other.parent
    assert find_caffe(nowhere / "other").tools == other.parent
    assert [name for name, _ in candidates()] == [
        "--caffe",
        "CAFFE_ROOT",
        "PATH",
        "installed runtime",
        "installed for GPUs",
    ]


def test_a_named_place_without_caffe_is_an_error_not_a_fallback(nowhere, monkeypatch):
    program(nowhere / "path/caffe")
    monkeypatch.setenv("CAFFE_ROOT", str(nowhere / "empty"))
    with pytest.raises(CaffeNotFoundError, match="CAFFE_ROOT"):
        find_caffe()
    with pytest.raises(CaffeNotFoundError, match="--caffe"):
        find_caffe(nowhere / "empty")
    for name in ("n" * 5000, "\0"):  # that no file can have
        with pytest.raises(CaffeNotFoundError, match="no caffe program"):
            find_caffe(nowhere / name)


@pytest.mark.slow
def test_host_libraries_do_not_reach_the_runtime(caffe, monkeypatch):
    if not caffe.is_runtime:
        pytest.skip("the Caffe found here is not the runtime")
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent.so")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib")
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    code = (
        "import caffe\n"
        "lines = open('/proc/self/maps').read().splitlines()\n"
        "print(*sorted({line.split()[-1] for line in lines if '.so' in line}), sep='\\n')"
    )
    command = tool_command(caffe, "python", ["-c", code])
    done = subprocess.run(command.argv, env=command.env, capture_output=True, text=True, check=True)
    libraries = done.stdout.split()
    assert len(libraries) > 50
    host_cache = "gconv-modules.cache"  # a table, no code
    foreign = [
        name
        for name in libraries
        if not name.startswith(str(caffe.root)) and host_cache not in name
    ]
    assert foreign == []


def test_tools_are_names(caffe):
    for tool in ("../../bin/sh", "/bin/sh", "", ".hidden"):
        with pytest.raises(UsageError):
            tool_command(caffe, tool)
    with pytest.raises(CaffeNotFoundError, match="no program 'no_such'"):
        tool_command(caffe, "no_such")


def cli(*args, **options):
    command = [sys.executable, "-m", "irv2caffe", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_arguments_input_and_exit_code_pass_through(caffe):
    code = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)"
    args = ["a b", "--force", "c'\"$(d)", "-h", "--traceback", ""]
    done = cli("caffe", "--tool", "python", "-c", code, *args, input="words")
    assert done.returncode == 7
    assert done.stdout == f"{args} words\n"
    assert "caffe version 1.0" in cli("caffe", "--version").stdout


def test_signals_pass_through(caffe):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-m", "irv2caffe", "caffe", "--tool", "python", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 42


def test_which_says_why(caffe):
    plain = cli("caffe", "--which")
    assert caffe.reason in plain.stdout
    as_json = json.loads(cli("caffe", "--which", "--json").stdout)
    assert as_json["program"] == str(caffe.tools / "caffe")
    assert as_json["version"].startswith("1.0")


@pytest.mark.slow
def test_the_caffe_found_here_works(caffe):
    trial = verify(caffe, pycaffe=True)
    assert trial.version.startswith("1.0")
    assert len(trial.passed) == 3


ONE_LINE = """
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] https://third.example/packages stable main
deb http://security.example/debian-security bookworm-security main
deb-src http://source.example/debian bookworm main
deb [ arch=amd64 ] http://mirror.example/debian/ bookworm main contrib # words
"""
DEB822 = """
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

# words
Types: deb deb-src
URIs: http://second.example/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
"""


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("sources.list", ONE_LINE, "http://mirror.example/debian"),
        ("sources.list.d/debian.sources", DEB822, "http://second.example/debian"),
    ],
)
def test_mirror_of_apt(nowhere, name, text, mirror):
    path = nowhere / "apt" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert choose_mirror(apt=nowhere / "apt") == mirror


def test_mirror_told_and_mirror_missing(nowhere, monkeypatch):
    apt = nowhere / "apt"
    apt.mkdir()
    (apt / "sources.list").write_text("deb http://u.example/ubuntu noble main\n")
    assert list(apt_entries(apt)) == [("http://u.example/ubuntu", "noble", "main")]
    assert choose_mirror(apt=apt) == ""  # Ubuntu: mmdebstrap knows a Debian mirror
    monkeypatch.setenv("IRV2CAFFE_MIRROR", "https://m.example/debian/")
    assert choose_mirror(apt=apt) == "https://m.example/debian"
    assert choose_mirror("file:///media/debian", apt=apt) == "file:///media/debian"


@pytest.mark.parametrize(
    "url",
    [
        *("", "-x", "--hook=sh", "debian", "http://", "http://a b/", "ftp://x/d", "http://x/\n"),
        *(
            "http://[trusted=yes]/debian",
            "http://[x]/debian",
            "http://x:99999/debian",
            "http://:80/",
        ),
    ],
)
def test_hostile_mirrors(url):
    with pytest.raises(UsageError):
        check_mirror(url)


needs_mmdebstrap = pytest.mark.skipif(
    shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed"
)


@pytest.mark.slow
@needs_mmdebstrap
@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        ("http://127.0.0.1:9/debian", "cannot be reached"),
        ("http://no-such-host.invalid/debian", "cannot be reached"),
        ("file:///nonexistent/debian", "does not have the suite"),
    ],
)
def test_failed_installs_leave_nothing(nowhere, mirror, words):
    with pytest.raises(InstallError, match=words):
        install_caffe(nowhere / "caffe", mirror=mirror)
    assert not list(nowhere.iterdir())


@contextmanager
def bad_mirror(answer):
    """An address whose every request is answered by a function, and an event of the first one."""
    asked, over = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            answer(self, over)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/debian", asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def drip(request, over):
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    try:
        while not over.wait(0.1):
            request.wfile.write(b"x")
            request.wfile.flush()
    except OSError:
        pass  # the other side is gone


def redirect_for_ever(request, over):
    request.send_response(302)
    request.send_header("Location", f"/debian/{time.monotonic_ns()}")
    request.send_header("Content-Length", "0")
    request.end_headers()


def say_nothing(request, over):
    over.wait()


@pytest.mark.slow
@needs_mmdebstrap
@pytest.mark.parametrize("answer", [drip, redirect_for_ever, say_nothing])
def test_a_mirror_that_sends_next_to_nothing_is_given_up(nowhere, monkeypatch, answer):
    monkeypatch.setattr("irv2caffe.caffe.mmdebstrap._STALL_S", 4.0)
    monkeypatch.setattr("irv2caffe.caffe.mmdebstrap._LOOK_EVERY_S", 0.2)
    with (
        bad_mirror(answer) as (mirror, asked),
        pytest.raises(InstallError, match="sent almost nothing") as caught,
    ):
        install_caffe(nowhere / "caffe", mirror=mirror)
    assert asked.is_set()
    assert "--mirror" in caught.value.hint
    assert not list(nowhere.iterdir())
    assert not processes_with(nowhere)


def processes_with(folder):
    """Processes in whose environment a folder is named, but for this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "environ").read_bytes()
        except OSError:
            continue
        if f"TMPDIR={folder}".encode() in text and int(place.name) != os.getpid():
            found.append(int(place.name))
    return found


@pytest.mark.slow
@needs_mmdebstrap
def test_a_killed_install_ends_its_children_and_the_next_one_removes_what_it_left(nowhere):
    prefix = nowhere / "caffe"
    with bad_mirror(drip) as (mirror, asked):
        command = [sys.executable, "-m", "irv2caffe", "install-caffe", "--prefix", str(prefix)]
        with subprocess.Popen([*command, "--mirror", mirror], stderr=subprocess.DEVNULL) as child:
            assert asked.wait(120)
            assert processes_with(nowhere)
            child.kill()
        patience = time.monotonic() + 120
        while processes_with(nowhere):
            assert time.monotonic() < patience
            time.sleep(0.2)
    assert list(nowhere.iterdir())
    said = []
    with pytest.raises(InstallError, match="cannot be reached"):
        install_caffe(prefix, mirror="http://127.0.0.1:9/debian", say=said.append)
    assert said[0] == "removed the files of an install that was interrupted"
    assert not list(nowhere.iterdir())


def test_missing_mmdebstrap_and_space_and_platform(nowhere, monkeypatch):
    mirror = "http://127.0.0.1:9/debian"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(nowhere))
        with pytest.raises(InstallError, match="mmdebstrap is missing") as caught:
            install_caffe(nowhere / "caffe", mirror=mirror)
        assert "apt-get install mmdebstrap" in caught.value.hint
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "aarch64")
        with pytest.raises(InstallError, match="Linux aarch64") as caught:
            install_caffe(nowhere / "caffe", mirror=mirror)
        assert "CAFFE_ROOT" in caught.value.hint
    if shutil.which("mmdebstrap"):
        monkeypatch.setattr("irv2caffe.system.free_bytes", lambda path: 10_000_000)
        with pytest.raises(InstallError, match=r"10\.0 MB are free"):
            install_caffe(nowhere / "caffe", mirror=mirror)


def test_a_foreign_folder_is_never_replaced(nowhere):
    (nowhere / "mine").mkdir()
    (nowhere / "mine/letter").write_text("dear")
    for force in (False, True):
        with pytest.raises(OutputExistsError):
            install_caffe(nowhere / "mine", force=force)
    assert (nowhere / "mine/letter").read_text() == "dear"


@pytest.mark.slow
@needs_mmdebstrap
def test_install_interrupted_and_whole(tmp_path, monkeypatch):
    """From the real archive: interrupted, then whole without pycaffe, then again at once.

    And one that somebody else overtakes.
    """
    prefix = tmp_path / "folder" / "caffe"
    command = [sys.executable, "-m", "irv2caffe", "install-caffe", "--prefix", str(prefix)]
    with subprocess.Popen(
        [*command, "--without-pycaffe"], stderr=subprocess.PIPE, text=True
    ) as child:
        first = child.stderr.readline()
        if not first.startswith("downloading"):
            rest = child.stderr.read()
            pytest.skip(f"no Debian mirror: {first}{rest}")
        time.sleep(2)
        child.send_signal(signal.SIGTERM)
        rest = child.stderr.read()
        if child.wait(60) == 1 and "cannot be reached" in rest:
            pytest.skip("the Debian mirror cannot be reached")
        assert child.returncode == 130
    assert list(prefix.parent.iterdir()) == []
    report = install_caffe(prefix, pycaffe=False)
    assert (report.version, report.prefix) == ("1.0.0", prefix)
    assert report.size_bytes > 200e6
    assert [path.name for path in prefix.parent.iterdir()] == ["caffe"]
    assert list((prefix / "usr/share/doc").glob("*/copyright"))
    manifest = json.loads((prefix / "irv2caffe-runtime.json").read_text())
    assert manifest["packages"]["caffe"].startswith("1.0.0+git")
    again = install_caffe(prefix, pycaffe=False)
    assert again.seconds == 0
    overtaken = tmp_path / "overtaken"

    def overtake(folder, *_):
        for place in (overtaken, folder):
            place.mkdir(exist_ok=True)
            for name in ("usr", "lib", "lib64"):
                (place / name).symlink_to(prefix / name)
        shutil.copy(prefix / "irv2caffe-runtime.json", overtaken)
        (folder / "irv2caffe-packages.txt").write_text("")

    with monkeypatch.context() as patch:
        patch.setattr("irv2caffe.caffe.install.unpack", overtake)
        assert install_caffe(overtaken, pycaffe=False).seconds == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "overtaken"]
    env = {**os.environ, "CAFFE_ROOT": str(prefix)}
    done = cli("caffe", "--tool", "python", "-c", "1", env=env)
    assert done.returncode == 1
    assert "without pycaffe" in done.stderr


def test_a_mirror_where_apt_uses_none(nowhere, monkeypatch):
    """As on Ubuntu: mmdebstrap's own default, if that is installed."""
    monkeypatch.setenv("PATH", str(nowhere / "path"))
    assert choose_mirror(None, nowhere) == ""
    with pytest.raises(UsageError, match="no Debian mirror is known") as caught:
        known_mirror(None, nowhere)
    assert "--mirror" in caught.value.hint
    program(
        nowhere / "path/mmdebstrap",
        'my $security = "http://a.example/debian-security";\nmy $m = "http://b.example/debian";\n',
    )
    assert known_mirror(None, nowhere) == "http://b.example/debian"
    assert known_mirror("http://c.example/debian/", nowhere) == "http://c.example/debian"
