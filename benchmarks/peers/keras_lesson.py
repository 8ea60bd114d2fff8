"""The lesson's training in the lesson's own framework, Keras 3, on TensorFlow or on JAX.

Started by the benchmarks with the Python of environment `tensorflow` or `jax` (`make bench-peers`):

    .venv-peers/tensorflow/bin/python -m benchmarks.peers.keras_lesson FOLDER --epochs 3
    .venv-peers/jax/bin/python -m benchmarks.peers.keras_lesson FOLDER --backend jax --steps-per-execution 75

Without options it is the lesson as it stands, on TensorFlow, which in Keras 3 already compiles with XLA
(`jit_compile="auto"`); the options are the settings that Keras documents for speed. Favourable to Keras: pixels are
float32 already, nothing is drawn, matplotlib is not imported, and the images are read from plain arrays.
"""

import os
import time
from typing import Any

from benchmarks.peers.protocol import Peer

JIT = {"auto": "auto", "on": True, "off": False}


def main() -> None:
    peer = Peer(__doc__, backend="tensorflow", jit="auto", steps_per_execution="1")
    settings = peer.settings
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = settings.backend
    if settings.threads == 1 and settings.backend == "jax":
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if settings.threads and settings.backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    import keras

    class Teller(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is not in the environment that checks types
        """Tells of each epoch."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds = time.perf_counter() - self.began
            peer.epoch_done(seconds, lambda x, y: judge.evaluate(x, y, verbose=0)[1], logs["accuracy"])

    keras.utils.set_random_seed(settings.seed)
    peer.versions("keras", "tensorflow-cpu" if settings.backend == "tensorflow" else "jax")
    images, labels = peer.read("train")
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    compiled = {
        "optimizer": "adam",
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
        "jit_compile": JIT[settings.jit],
        "steps_per_execution": int(settings.steps_per_execution),
    }
    model.compile(**compiled)
    judge = model
    model.fit(images, labels, epochs=settings.epochs, verbose=0, callbacks=[Teller()])


if __name__ == "__main__":
    main()
