"""A network that daukit did not build, and an input of it."""

import torch
from torch import nn

from daukit.nn import DAUConv2d


class Net(nn.Module):
    """A network that daukit did not build, with a pool between its layers."""

    def __init__(self, width=4):
        super().__init__()
        self.first = DAUConv2d(2, width, 2)
        self.pool = nn.MaxPool2d(2)
        self.second = DAUConv2d(width, 3, 2, learn_sigma=True)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, input):
        return self.norm(self.second(self.pool(torch.relu(self.first(input)))))


X = torch.linspace(-1, 1, 2 * 2 * 8 * 8).reshape(2, 2, 8, 8)


def network():
    torch.manual_seed(0)
    return Net().train()
