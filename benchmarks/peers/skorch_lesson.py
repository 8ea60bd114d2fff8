"""The lesson's network in skorch, as its documentation shows it: NeuralNetClassifier, shuffled, Adam, batch 32.

    .venv-peers/skorch/bin/python -m benchmarks.peers.skorch_lesson FOLDER [--adam fused]

No images are held out for validation (`train_split=None`), as in the lesson; skorch would take a fifth by default.
"""

import time
from typing import Any

import torch
from benchmarks.peers.protocol import Peer
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn


def main() -> None:
    peer = Peer(__doc__, adam="default")
    settings = peer.settings
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    peer.versions("skorch", "torch")

    class Teller(Callback):  # type: ignore[misc]  # skorch is not in the environment that checks types
        """Tells of each epoch."""

        def on_epoch_begin(self, net: Any, **_: Any) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, net: Any, **_: Any) -> None:
            seconds = time.perf_counter() - self.began
            peer.epoch_done(seconds, lambda x, y: float((net.predict(x) == y).mean()))

    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))
    classifier = NeuralNetClassifier(
        network,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=settings.adam == "fused" or None,
        lr=1e-3,
        batch_size=32,
        max_epochs=settings.epochs,
        train_split=None,
        iterator_train__shuffle=True,
        callbacks=[Teller()],
        verbose=0,
    )
    classifier.fit(*peer.read("train"))


if __name__ == "__main__":
    main()
