"""The examples, run as users run them, on data sets in small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import devkit, ilsvrc_train, ilsvrc_val
from helpers.paths import ROOT


@pytest.mark.slow
def test_imagenet_from_the_downloads_to_the_plot(caffe, tmp_path):
    rng = np.random.default_rng(0)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    ilsvrc_train(downloads / "ILSVRC2012_img_train.tar", rng)
    ilsvrc_val(downloads / "ILSVRC2012_img_val.tar", rng)
    devkit(downloads)
    small = ["--variant", "paper", "--crop", "75", "--width", "0.05", "--batch-size", "5"]
    command = [str(ROOT / "examples/imagenet/train.sh"), "downloads", "out", *small]
    env = {**os.environ, "GPUS": "none", "RESIZE": "80"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        [*command, "--epochs", "2", "--bn-fraction", "0.5"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: run" in done.stdout
    assert {"train_lmdb", "val_lmdb", "net", "run", "train.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert (tmp_path / "out/run/plot.png").is_file()


def test_imagenet_says_how_it_is_used():
    done = subprocess.run(
        [str(ROOT / "examples/imagenet/train.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Usage: examples/imagenet/train.sh DOWNLOADS FOLDER" in done.stdout
    assert "set -euo" not in done.stdout
