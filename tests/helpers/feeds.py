"""Batches of the engine's feeds and of the real Caffe's data layers."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import torch

from helpers.paths import HELPERS
from irv2caffe.engine.data.feed import open_feed
from irv2caffe.engine.data.order import Share
from irv2caffe.engine.options import EngineOptions
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt


def data_net(source, transform="", *, batch=4, name="in", tops=("data", "label")):
    """The text of a net with a Data layer."""
    tops = " ".join(f'top: "{top}"' for top in tops)
    return (
        f'layer {{ name: "{name}" type: "Data" {tops} transform_param {{ {transform} }} '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}'
    )


def feed_of(text, phase="TRAIN", *, rank=0, world=1, seed=1, info=None, device="cpu", **options):
    """A feed of a net."""
    net = parse_prototxt(text, messages.NetParameter)
    told = EngineOptions(**options)
    return open_feed(
        net,
        phase,
        told,
        device=torch.device(device),
        share=Share(rank, world),
        seed=seed,
        info=info,
    )


def taken(feed, count):
    """The first batches of a feed: an array of each top."""
    found: dict[str, list[np.ndarray]] = {}
    with feed:
        for _ in range(count):
            for name, top in feed.next().items():
                found.setdefault(name, []).append(top.cpu().numpy().copy())
    return {name: np.array(batches) for name, batches in found.items()}


def caffe_batches(caffe, folder, cases):
    """What the real Caffe delivers for nets, from one process; see caffe_batches.py.

    Args:
        caffe: the fixture.
        folder: for files.
        cases: by name, a dictionary of text, phase, count, and perhaps rank and world.
    """
    from irv2caffe.caffe.command import tool_command

    work = {}
    for name, case in cases.items():
        path = folder / f"{name}.prototxt"
        path.write_text(case["text"])
        work[name] = {**case, "path": str(path)}
        del work[name]["text"]
    (folder / "work.json").write_text(json.dumps(work))
    script = str(HELPERS / "caffe_batches.py")
    arguments = [script, str(folder / "work.json"), str(folder / "found.npz")]
    command = tool_command(caffe, "python", arguments)
    subprocess.run(command.argv, env=command.env, check=True, timeout=300)
    with np.load(folder / "found.npz") as found:
        return dict(found)
