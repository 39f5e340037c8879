"""The anatomy of the phantom's healthy head.

Anatomy is a set of signed depths in mm, positive inside, at points (x, y, z) in mm: x to the
patient's right, y to the front, z up, the origin near the anterior commissure. Positions and sizes
are round numbers for an adult brain, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

PITCH_MM = 31.0, 24.0  # periods of the cortex folds: main and side sulci

Floats = NDArray[Any]
"""Arrays of float32."""
Points = Sequence[Floats]
"""Arrays x, y, z of one shape."""
Noise = Callable[[float], Floats]
"""Period in mm -> smooth noise of deviation about 1 at the brain's voxels."""


def length(vector: Sequence[Any]) -> Floats:
    """Length of each vector of arrays (x, y, z)."""
    x, y, z = vector
    return np.sqrt(x * x + y * y + z * z)


def _ellipsoid(p: Points, centre: Sequence[float], radii: Sequence[float]) -> Floats:
    """Depth in an ellipsoid to first order, exact for a sphere."""
    q = [(c - o) / r for c, o, r in zip(p, centre, radii, strict=True)]
    k = length(q) + 1e-6  # avoids 0 / 0 in the middle
    slope = length([c / r for c, r in zip(q, radii, strict=True)]) + 1e-6 / min(radii)
    return (1 - k) * k / slope


def _capsule(
    p: Points, start: Sequence[float], end: Sequence[float], radii: tuple[float, float]
) -> Floats:
    """Depth in a rod whose radius goes from radii[0] at its start to radii[1] at its end."""
    rod = [float(e - s) for s, e in zip(start, end, strict=True)]
    q = [c - s for c, s in zip(p, start, strict=True)]
    along = np.clip(sum(c * r for c, r in zip(q, rod, strict=True)) / sum(r * r for r in rod), 0, 1)
    return (
        radii[0]
        + (radii[1] - radii[0]) * along
        - length([c - r * along for c, r in zip(q, rod, strict=True)])
    )


def _join(a: Floats, b: Floats, blend_mm: float) -> Floats:
    """Union of two depths, with the seam rounded over blend_mm."""
    seam = np.clip(blend_mm - np.abs(a - b), 0, None)
    return np.maximum(a, b) + seam * seam / (4 * blend_mm)


def _meet(a: Floats, b: Floats, blend_mm: float) -> Floats:
    """Intersection of two depths, with the edge rounded over blend_mm."""
    return -_join(-a, -b, blend_mm)


def ramp(depth: Floats, width_mm: float = 1.0) -> Floats:
    """Share of tissue: 0 outside, 1 inside, linear over width_mm."""
    return np.clip(depth / width_mm + 0.5, 0, 1)


def _beyond(depth: Floats, limit: float | Floats = 0.0) -> Floats:
    return np.clip(depth - limit, 0, None)


def _cerebrum(p: Points) -> Floats:
    x, y, z = p
    narrow = 1 - 1.35e-5 * _beyond(y, -20) ** 2  # the front is narrower than the back
    upper = _ellipsoid((x / narrow, y, z), (0, -16, 10), (65, 84, 60))
    base = z + 24 - 9 * ramp(-42 - y, 12)  # flat, and higher above the cerebellum
    temporal = _ellipsoid((np.abs(x), y + 0.2 * z, z), (41, -16, -20), (21, 44, 22))
    return _join(_meet(upper, base, 12), temporal, 6)


def _cerebellum(p: Points) -> Floats:
    x = np.abs(p[0])
    return _ellipsoid((x, p[1], p[2] + 0.12 * x), (20, -60, -37), (32, 32, 23))


def _stem(p: Points) -> Floats:
    pons = _ellipsoid(p, (0, -24, -34), (17, 13, 14))
    return _join(_capsule(p, (0, -20, -10), (0, -34, -74), (13, 8)), pons, 6)


def hull(p: Points) -> Floats:
    """Depth in the outer hull of the brain, including the fluid between its parts."""
    return _join(_join(_cerebrum(p), _cerebellum(p), 12), _stem(p), 14) + 0.5


def _sheets(p: Points, pitch_mm: float) -> Floats:
    """Distance to the sheets of a gyroid, to first order; on a surface they look like sulci."""
    k = 2 * np.pi / pitch_mm
    (sx, cx), (sy, cy), (sz, cz) = ((np.sin(c * k), np.cos(c * k)) for c in p)
    return np.abs(sx * cy + sy * cz + sz * cx) * (0.8 / k)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Depths of the healthy head at the brain's voxels, in mm."""

    cerebrum: Floats  # without its folds
    cortex: Floats  # below the pia of the cerebrum
    cerebellum: Floats  # as a whole, outside cerebrum and stem
    folia: Floats  # below the pia of the cerebellum
    stem: Floats
    nuclei: Floats
    ventricles: Floats
    vessels: Floats
    stripped: Floats  # the brain mask of a skull stripping

    @staticmethod
    def fold(p: Points, noise: Noise) -> Anatomy:
        """The head at the given points; the noise makes each head different."""
        mirrored = (np.abs(p[0]), p[1], p[2])
        cerebrum, cerebellum, stem = _cerebrum(p), _cerebellum(p), _stem(p)
        surface, midline = _surface(mirrored, cerebrum, noise)
        cortex, sulci = _cortex(p, surface, noise)
        folia = _folia(p, cerebellum, noise)
        brain = np.maximum.reduce([cortex, folia, stem])
        return Anatomy(
            cerebrum=cerebrum,
            cortex=cortex,
            cerebellum=np.minimum(cerebellum, cerebellum - np.maximum(cerebrum, stem)),
            folia=folia,
            stem=stem,
            nuclei=_nuclei(mirrored),
            ventricles=_ventricles(mirrored),
            vessels=_vessels(mirrored, cerebrum, sulci, midline, noise),
            stripped=np.maximum(brain + 2.0, np.maximum(cerebrum, cerebellum) - 4.0),
        )


def _surface(mirrored: Points, cerebrum: Floats, noise: Noise) -> tuple[Floats, Floats]:
    """Depth below the cerebrum's surface, large fissures included; depth in the midline fissure."""
    x, y, z = mirrored
    callosum = _ellipsoid((0 * x, y, z), (0, -5, 4), (1e3, 37, 25))
    midline = 0.8 - x - 2.5 * _beyond(callosum)
    bent = z + 4 + 0.4 * (y - 10) + 3 * noise(24.0)
    sylvian = 0.8 - 0.9 * np.abs(bent) - _beyond(37 - x) - _beyond(y, 22) - _beyond(-42 - y)
    return np.minimum(cerebrum, -np.maximum(midline, sylvian)), midline


def _cortex(p: Points, surface: Floats, noise: Noise) -> tuple[Floats, Floats]:
    """Depth below the folded pia, and distance to the main sulci."""
    x, y, z = p
    radius = length((x / 66, (y + 16) / 86, (z - 8) / 62)) + 1e-3
    # Sheets that depend mostly on the direction from the middle are upright on the surface.
    q = [c / radius + 4.0 * noise(18.0) for c in (x, y + 16, z - 8)]
    main, side = (
        _sheets(q, PITCH_MM[0]) * radius,
        _sheets([c + 50 for c in q], PITCH_MM[1]) * radius,
    )
    # Sulci are open at the surface, and there are none in the middle.
    gape = np.exp(_beyond(surface) / -4) - 40 * _beyond(0.56 - radius)
    width, depth = noise(24.0), noise(24.0)
    main_wall = main - 0.3 - 0.25 * width - 0.8 * gape + _beyond(surface, 19 + 6 * depth)
    side_wall = side - 0.1 - 0.5 * gape + _beyond(surface, 9 + 4 * width)
    return _meet(surface, _meet(main_wall, side_wall, 1.5), 3.0), main


def _folia(p: Points, cerebellum: Floats, noise: Noise) -> Floats:
    """Depth below the pia of the cerebellum, with folds 5 mm apart around the fourth ventricle."""
    _, y, z = p
    rough = noise(12.0)
    fan = np.arctan2(z + 34, -(y + 40)) * 26 + 1.5 * rough
    walls = 1.6 * np.abs(np.sin(fan * (np.pi / 5))) - 0.3 + _beyond(cerebellum, 10 + 4 * rough)
    return np.minimum(cerebellum, walls)


def _nuclei(mirrored: Points) -> Floats:
    x, y, z = mirrored
    thalamus = _ellipsoid(mirrored, (12, -18, 7), (9, 14, 9))
    caudate = _ellipsoid(mirrored, (13, 15, 6), (5, 11, 9))
    putamen = _ellipsoid((x + 0.25 * (y - 3), y, z), (26, 3, 2), (6, 17, 10))
    return np.maximum.reduce([thalamus, caudate, putamen])


def _ventricles(mirrored: Points) -> Floats:
    x = mirrored[0]
    x_y_z_radius = (
        *((7, 30, 8, 4.0), (9, 8, 19, 4.5), (12, -18, 22, 5.0)),
        *((24, -40, 14, 7.0), (27, -64, 8, 3.0)),
    )
    lateral = _capsule(mirrored, (25, -38, 10), (36, -12, -16), (4, 2.5))
    for start, end in pairwise(x_y_z_radius):
        lateral = np.maximum(lateral, _capsule(mirrored, start[:3], end[:3], (start[3], end[3])))
    third = np.minimum(2.0 - x, _ellipsoid(mirrored, (0, -8, 1), (50, 15, 11)))
    fourth = _ellipsoid(mirrored, (0, -44, -34), (8, 6, 12))
    return np.maximum.reduce([np.minimum(lateral, x - 0.8), third, fourth])


def _vessels(
    mirrored: Points, cerebrum: Floats, sulci: Floats, midline: Floats, noise: Noise
) -> Floats:
    """Depth in healthy tissue that enhances: veins, falx, sagittal sinus, choroid plexus."""
    x, y, z = mirrored
    veins = 1.0 - np.hypot(sulci, cerebrum - 0.5) - _beyond(-noise(24.0)) - _beyond(-8 - z)
    falx = np.minimum.reduce([midline, 0.3 - x, z + 10])
    sinus = np.minimum(1.8 - 0.01 * y - np.hypot(x, cerebrum - 1), z - 13 - 0.2 * y)
    plexus = _ellipsoid(mirrored, (24.5, -38, 12), (1.6, 4, 1.6))
    return np.maximum.reduce([veins, falx, sinus, plexus])
