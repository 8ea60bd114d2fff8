"""The lesson's network in a plain PyTorch loop, as the official quickstart writes it: DataLoader, autograd, Adam.

    .venv-peers/pytorch/bin/python -m benchmarks.peers.pytorch_loop FOLDER --loader batches --adam fused --compile on

Favourable to PyTorch: the quickstart reads pictures through torchvision's FashionMNIST and ToTensor, one PIL image at
a time; here they are tensors in memory (TensorDataset), and no running accuracy is counted. `--loader batches` draws
whole batches by index (a BatchSampler as the sampler, `batch_size=None`, as the DataLoader's documentation describes),
`--adam fused` takes the optimizer's fused implementation, `--compile on` compiles the network with torch.compile.
"""

import time

import torch
from benchmarks.peers.protocol import Labels, Peer, Pixels
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

BATCH = 32


def main() -> None:
    peer = Peer(__doc__, loader="items", adam="default", compile="off")
    settings = peer.settings
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    peer.versions("torch")
    images, labels = peer.read("train")
    dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    if settings.loader == "batches":
        sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=False)
        loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(dataset, sampler=sampler, batch_size=None)
    else:
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
    model = lesson_network()
    answer = torch.compile(model) if settings.compile == "on" else model
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=settings.adam == "fused" or None)

    def accuracy(x: Pixels, y: Labels) -> float:
        with torch.no_grad():
            return float((model(torch.from_numpy(x)).argmax(1) == torch.from_numpy(y)).float().mean())

    for _ in range(settings.epochs):
        began = time.perf_counter()
        model.train()
        for batch, truth in loader:
            loss = loss_function(answer(batch), truth)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        peer.epoch_done(time.perf_counter() - began, accuracy)


def lesson_network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))


if __name__ == "__main__":
    main()
