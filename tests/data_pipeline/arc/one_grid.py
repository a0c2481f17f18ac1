# SPDX-License-Identifier: Apache-2.0
"""Augmentations of one grid, and their published names: `id|||t3|||0412...`."""

import numpy as np

from data_pipeline import dihedral
from data_pipeline.arc.augmentations import decode_augmentation, encode_augmentation


def apply(grid, code):
    """The grid turned, then its colours renamed."""
    transform, colours = decode_augmentation(np.array(code))
    return colours[dihedral.turn(grid, int(transform))]


def invert(grid, code):
    """The grid that `apply` changed into this one."""
    transform, colours = decode_augmentation(np.array(code))
    back = dihedral.turn(grid, int(dihedral.INVERSE[transform]))
    return np.argsort(colours).astype(np.uint8)[back]


def code_of(name):
    _, turned, digits = name.split("|||")
    colours = np.array([int(digit) for digit in digits])
    return int(encode_augmentation(np.array(int(turned[1:])), colours))
