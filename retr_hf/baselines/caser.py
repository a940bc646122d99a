"""Caser: the last items of a history as an image, read by convolutions. A network from item vectors to states.

Tang, Wang, *Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding*, WSDM 2018. Letters: S
histories, n columns, d width, L items of the image, E ∈ R^{L×d} the image that ends at a step.

    horizontal  each height a = 1 .. L, n_h filters F ∈ R^{a×d}:  c_j = ReLU(⟨E_{j:j+a-1}, F⟩ + b),  o = max_j c_j
    vertical    n_v filters g ∈ R^L:  õ = g^T E
    z = ReLU(W_1 dropout[õ; o] + b_1) ∈ R^d,    score of item i = w_i · z + b_i

The tables are the head's: w is ``output_table``, another than the one that is read, b is ``item_bias``.

Their name -> ours: ``L`` -> ``caser_length``, ``nh`` -> ``horizontal_filters``, ``nv`` -> ``vertical_filters``,
``drop`` -> ``hidden_dropout``, ``W2``, ``b2`` -> ``output_table``, ``item_bias``.

NOTE No user vector P_u beside z: histories come without their users here, and new users have none. It is the variant
without personalisation of the authors' own ablation.
NOTE The image before the first items is zero, and stays so; the authors learn a vector for it, RecBole draws one.
NOTE Every step has one target, the next item (the authors: the next T = 3), with the objective of the recipe; "bce" is
theirs with one negative in place of three.
"""

import torch
from torch import nn


class Caser(nn.Module):
    """Built from a config: ``hidden_size``, ``caser_length``, ``horizontal_filters``, ``vertical_filters``."""

    def __init__(self, config):
        super().__init__()
        d, self.length = config.hidden_size, config.caser_length
        heights = range(1, self.length + 1)
        self.horizontal = nn.ModuleList(nn.Conv1d(d, config.horizontal_filters, height) for height in heights)
        self.vertical = nn.Conv1d(1, config.vertical_filters, self.length, bias=False)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.dense = nn.Linear(config.vertical_filters * d + config.horizontal_filters * self.length, d)

    def forward(self, tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """tokens [S, n, d], valid bool [S, n], padding on the right alone -> states [S, n, d].

        Neighbouring images overlap, so each filter goes over the history once, and the maximum over the places within
        an image is a pooling of what it found (in two dimensions: torch.export fixes the length of ``max_pool1d``).
        """
        image = nn.functional.pad(tokens.transpose(1, 2), (self.length - 1, 0))  # [S, d, L - 1 + n]
        o = [
            nn.functional.max_pool2d(conv(image).relu(), (1, self.length - conv.kernel_size[0] + 1), stride=1)
            for conv in self.horizontal
        ]  # each [S, n_h, n]
        columns = nn.functional.conv2d(image.unsqueeze(1), self.vertical.weight.unsqueeze(2))  # [S, n_v, d, n]
        columns = columns.flatten(1, 2)
        features = torch.cat([columns, *o], dim=1).transpose(1, 2)
        return self.dense(self.dropout(features)).relu()
