"""Augmentation that changes nothing."""

from training.config import AugmentConfig

PLAIN = AugmentConfig(
    mirror=(0, 0, 0),
    affine=0,
    intensity=0,
    contrast=0,
    noise=0,
    smooth=0,
    thick_slices=0,
    bias_field=0,
)
