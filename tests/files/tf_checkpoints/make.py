"""How the checkpoints beside this file were made: by TensorFlow's own savers.

They were written with tensorflow-cpu 2.21.0, which nothing else here needs:

    python make.py

``v1.ckpt`` and ``v2.ckpt`` hold the same values in the two formats (V1 cannot hold bfloat16),
``two_shards.ckpt`` is spread over two files of values, and ``parted_*`` hold one variable in parts.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def values():
    """What the checkpoints hold, by name."""
    rng = np.random.default_rng(7)
    return {
        "InceptionResnetV2/Conv2d_1a_3x3/weights": rng.normal(0, 1, (3, 3, 3, 4)).astype("f4"),
        "InceptionResnetV2/Conv2d_1a_3x3/BatchNorm/beta": np.array([0.5, -1, 2, 0], "f4"),
        "zeros": np.zeros((12, 10), "f4"),
        "steps": (np.arange(120) % 7).astype("f4").reshape(40, 3),
        "double": np.array([1 / 3, -2.5]),
        "half": np.array([1.5, -0.25, 1e-3], "f2"),
        "scalar": np.array(3.25, "f4"),
        "global_step": np.array(123456789012, "i8"),
    }


BRAIN = [1.0, -2.75]  # values that bfloat16 can hold


def main():
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    v1 = tf.train.SaverDef.V1

    def save(name, variables, session, **options):
        saver = tf.train.Saver(variables, **options)
        saver.save(session, str(HERE / name), write_meta_graph=False)

    config = tf.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        variables = []
        for index, (name, value) in enumerate(values().items()):
            with tf.device(f"/cpu:{index % 2}"):
                start = tf.constant(value)
                variables.append(tf.get_variable(name, initializer=start, use_resource=False))
        with tf.device("/cpu:0"):
            start = tf.cast(tf.constant(BRAIN), tf.bfloat16)
            brain = tf.get_variable("brain", initializer=start, use_resource=False)
        session.run(tf.global_variables_initializer())
        save("two_shards.ckpt", [*variables, brain], session, sharded=True)
        save("v2.ckpt", [*variables, brain], session)
        save("v1.ckpt", variables, session, write_version=v1)
    with tf.Graph().as_default(), tf.Session() as session:
        parts = tf.fixed_size_partitioner(2)
        ones = tf.ones_initializer()
        tf.get_variable("parted", [6, 2], initializer=ones, partitioner=parts, use_resource=False)
        session.run(tf.global_variables_initializer())
        save("parted_v2.ckpt", None, session)
        save("parted_v1.ckpt", None, session, write_version=v1)
    (HERE / "checkpoint").unlink()
    shutil.rmtree(HERE / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
