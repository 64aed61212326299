"""Make ``dau.ckpt.*`` and ``dau.npz`` with TensorFlow itself: ``python make_tensorflow.py FOLDER``.

TensorFlow 2.21 (``pip install tensorflow-cpu``) wrote the files here, by the Saver of its first version, whose
checkpoints and names of variables are those of the DAU plugin's time. ``dau.npz`` is the same file as TensorFlow's own
reader gives it: what daukit's reader is compared with.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def variables(random):
    """A DAU layer of either layout of sigma, one with a dummy unit, and the layers around them."""

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    one, two = (1, 3, 2, 5), (1, 5, 4, 4)
    yield "DAUConv/weights", normal(*one)
    yield "DAUConv/mu1", 3 * normal(*one)  # some of them beyond the limit of 4
    yield "DAUConv/mu2", 3 * normal(*one)
    yield "DAUConv/sigma", np.full((1,), 0.5, np.float32)
    yield "DAUConv/biases", normal(5)
    weights = normal(*two)
    weights[:, :, -1] = 0
    yield "dau_conv1/dau_conv1_1/weights", weights
    yield "dau_conv1/dau_conv1_1/mu1", normal(*two)
    yield "dau_conv1/dau_conv1_1/mu2", normal(*two)
    yield "dau_conv1/dau_conv1_1/sigma", np.full(two, 0.35, np.float32)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield f"dau_conv1/dau_conv1_1/batch_normalization/{name}", normal(4)
    yield "conv/weights", normal(3, 1, 4, 2)
    yield "fc/weights", normal(6, 2).astype(np.float64)


def write(folder):
    """Write both into ``folder``."""
    with tf.Graph().as_default(), v1.Session() as session:
        made = [
            v1.get_variable(name, initializer=value, trainable="sigma" not in name)
            for name, value in variables(np.random.default_rng(0))
        ]
        step = v1.train.get_or_create_global_step()
        loss = tf.add_n([tf.cast(tf.reduce_sum(variable**2), tf.float32) for variable in made])
        train = v1.train.AdamOptimizer(0.01).minimize(loss, global_step=step)
        averages = tf.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([train]):
            average = averages.apply(v1.trainable_variables())
        session.run(v1.global_variables_initializer())
        session.run(average)
        path = v1.train.Saver().save(session, str(folder / "dau.ckpt"), write_meta_graph=False, write_state=False)
    reader = tf.train.load_checkpoint(path)
    np.savez_compressed(folder / "dau.npz", **{n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()})


if __name__ == "__main__":
    write(Path(sys.argv[1]))
