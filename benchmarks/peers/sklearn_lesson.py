"""The lesson's network as scikit-learn's MLPClassifier: 128 hidden units, Adam at 0.001, batch 32, no L2 penalty.

    .venv-peers/sklearn/bin/python -m benchmarks.peers.sklearn_lesson FOLDER [--threads 1]

`partial_fit` is one epoch, shuffled, by the same code as `fit`; pixels are float32, which it keeps.
"""

import time
from contextlib import nullcontext

import numpy as np
from benchmarks.peers.protocol import Labels, Peer, Pixels
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits


def main() -> None:
    peer = Peer(__doc__)
    settings = peer.settings
    peer.versions("scikit-learn", "numpy")
    images, labels = peer.read("train")
    flat = images.reshape(len(images), -1)
    classifier = MLPClassifier((128,), alpha=0.0, batch_size=32, random_state=settings.seed)

    def accuracy(x: Pixels, y: Labels) -> float:
        return float(classifier.score(x.reshape(len(x), -1), y))

    with threadpool_limits(settings.threads) if settings.threads else nullcontext():
        for _ in range(settings.epochs):
            began = time.perf_counter()
            classifier.partial_fit(flat, labels, classes=np.arange(10))
            peer.epoch_done(time.perf_counter() - began, accuracy)


if __name__ == "__main__":
    main()
