"""The network of exercise 6.6: a picture in patches, two layers of attention, and a classifier."""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)

    def split(self, x):
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x):
        query = self.split(self.query(x))
        key = self.split(self.key(x))
        value = self.split(self.value(x))
        scores = query @ key.transpose(2, 3)
        scores = scores * (x.shape[2] // self.heads) ** -0.5
        weights = scores.softmax(3)
        seen = weights @ value
        return self.mix(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.first_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.second_norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attention(self.first_norm(x))
        wide = self.grow(self.second_norm(x))
        wide = F.gelu(wide)
        return x + self.shrink(wide)


class Recognizer(nn.Module):
    def __init__(self, width=16, heads=4, classes=10):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, stride=7)
        self.place = nn.Parameter(torch.randn(16, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)

    def forward(self, image):
        x = self.patches(image)
        x = x.flatten(2).transpose(1, 2)
        x = x + self.place
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x).mean(1)
        return self.classify(x).softmax(1)
