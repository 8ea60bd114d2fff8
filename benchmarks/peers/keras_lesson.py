"""The lesson's training in the lesson's own framework, timed: Keras 3 on TensorFlow.

Run by the peers' Python (`make bench-peers` makes it), started by `benchmarks/epoch_speed.py`:

    .venv-peers/bin/python benchmarks/peers/keras_lesson.py FOLDER --epochs 3

FOLDER holds images.npy (N, 28, 28) uint8 and labels.npy (N,). Without options it is the lesson as it stands, which in
Keras 3 already compiles with XLA (`jit_compile="auto"`); the options are the settings that Keras documents for speed.
Prints one JSON line: seconds of each epoch, the last training accuracy, versions. Nothing is drawn while timing.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf

JIT = {"auto": "auto", "on": True, "off": False}


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is not in the environment that checks types
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def main() -> None:
    parser = argparse.ArgumentParser(description="The lesson in Keras on TensorFlow, timed.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--jit", choices=JIT, default="auto")
    parser.add_argument("--steps-per-execution", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: TensorFlow's own choice")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    keras.utils.set_random_seed(settings.seed)
    images = np.load(settings.folder / "images.npy") / 255.0
    labels = np.load(settings.folder / "labels.npy")
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=JIT[settings.jit],
        steps_per_execution=settings.steps_per_execution,
    )
    watch = Stopwatch()
    history = model.fit(images, labels, epochs=settings.epochs, verbose=0, callbacks=[watch]).history
    print(
        json.dumps(
            {
                "seconds": watch.seconds,
                "training_accuracy": history["accuracy"][-1],
                "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
            }
        )
    )


if __name__ == "__main__":
    main()
