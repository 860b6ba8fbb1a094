"""A plain PyTorch script for two tasks, the reference of `benchmarks/speed.py`.

Two torchvision datasets with ToTensor and Normalize, two zipped DataLoaders without workers, a small convolutional
trunk with two linear heads, the sum of the losses, and `.item()` at each step for the running loss.

    python benchmarks/textbook.py --data data --epochs 1 --seed 0

It prints one JSON document: seconds of each training epoch, test accuracies, peak memory in bytes.
"""

import argparse
import json
import resource
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class SharedTrunk(nn.Module):
    """conv 1→10 k5, conv 10→20 k5 with channel dropout, fc 320→50 with dropout, fc 50→features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, features)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        return self.fc2(x)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--features", type=int, default=50)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    mnist_transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    mnist_train = datasets.MNIST(args.data, train=True, transform=mnist_transform)
    mnist_test = datasets.MNIST(args.data, train=False, transform=mnist_transform)
    fmnist_transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
    fmnist_train = datasets.FashionMNIST(args.data, train=True, transform=fmnist_transform)
    fmnist_test = datasets.FashionMNIST(args.data, train=False, transform=fmnist_transform)
    mnist_loader = DataLoader(mnist_train, batch_size=args.batch_size, shuffle=True)
    fmnist_loader = DataLoader(fmnist_train, batch_size=args.batch_size, shuffle=True)

    trunk = SharedTrunk(args.features)
    mnist_head = nn.Linear(args.features, 10)
    fmnist_head = nn.Linear(args.features, 10)
    parameters = [*trunk.parameters(), *mnist_head.parameters(), *fmnist_head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    seconds = []
    for _ in range(args.epochs):
        start = time.perf_counter()
        trunk.train()
        running = 0.0
        for (x1, y1), (x2, y2) in zip(mnist_loader, fmnist_loader, strict=True):
            optimizer.zero_grad()
            loss1 = F.cross_entropy(mnist_head(trunk(x1)), y1)
            loss2 = F.cross_entropy(fmnist_head(trunk(x2)), y2)
            loss = loss1 + loss2
            loss.backward()
            optimizer.step()
            running += loss.item()
        seconds.append(time.perf_counter() - start)

    trunk.eval()
    accuracy = {}
    with torch.no_grad():
        for name, dataset, head in (("mnist", mnist_test, mnist_head), ("fashion", fmnist_test, fmnist_head)):
            correct = 0
            for x, y in DataLoader(dataset, batch_size=1000):
                correct += (head(trunk(x)).argmax(1) == y).sum().item()
            accuracy[name] = correct / len(dataset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds_per_epoch": seconds, "accuracy": accuracy, "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main()
