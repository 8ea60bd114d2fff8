"""The lesson's network in fastai: a Learner on DataLoaders, Adam at a constant 0.001, batch 32.

    .venv-peers/fastai/bin/python -m benchmarks.peers.fastai_lesson FOLDER [--adam fused] [--threads 1]

Favourable to fastai: images are tensors in memory, drawn in whole batches by index; no validation images, no bars.
`--adam fused` takes PyTorch's fused Adam through fastai's OptimWrapper.
"""

import time
from functools import partial
from typing import Any

import torch
from benchmarks.peers.protocol import Labels, Peer, Pixels
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam, OptimWrapper
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset


def main() -> None:
    peer = Peer(__doc__, adam="fastai")
    settings = peer.settings
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    peer.versions("fastai", "torch")
    images, labels = peer.read("train")
    dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    sampler = BatchSampler(RandomSampler(dataset), 32, drop_last=False)
    loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(dataset, sampler=sampler, batch_size=None)
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))

    def accuracy(x: Pixels, y: Labels) -> float:
        with torch.no_grad():
            return float((network(torch.from_numpy(x)).argmax(1) == torch.from_numpy(y)).float().mean())

    class Teller(Callback):  # type: ignore[misc]  # fastai is not in the environment that checks types
        """Tells of each epoch."""

        def before_train(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def after_train(self, *_: Any) -> None:
            peer.epoch_done(time.perf_counter() - self.began, accuracy)

    fused = partial(OptimWrapper, opt=partial(torch.optim.Adam, fused=True))
    learner = Learner(
        DataLoaders(loader, []),
        network,
        loss_func=CrossEntropyLossFlat(),
        opt_func=fused if settings.adam == "fused" else Adam,
        lr=1e-3,
        cbs=[Teller()],
    )
    with learner.no_logging():
        learner.fit(settings.epochs)


if __name__ == "__main__":
    main()
