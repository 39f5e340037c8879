"""The header of a NIfTI image as its bytes say it: nifti1.h and nifti2.h of https://nifti.nimh.nih.gov.

Ours, since importing nibabel takes longer than reading a case.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Name and type in NIfTI-1, by place. The first fields of a text are unused in NIfTI.
_FIELDS_1 = (
    "sizeof_hdr i4, data_type S10, db_name S18, extents i4, session_error i2, regular S1, "
    "dim_info u1, dim 8i2, intent_p1 f4, intent_p2 f4, intent_p3 f4, intent_code i2, datatype i2, "
    "bitpix i2, slice_start i2, pixdim 8f4, vox_offset f4, scl_slope f4, scl_inter f4, "
    "slice_end i2, slice_code u1, xyzt_units u1, cal_max f4, cal_min f4, slice_duration f4, "
    "toffset f4, glmax i4, glmin i4, descrip S80, aux_file S24, qform_code i2, sform_code i2, "
    "quatern_b f4, quatern_c f4, quatern_d f4, qoffset_x f4, qoffset_y f4, qoffset_z f4, "
    "srow_x 4f4, srow_y 4f4, srow_z 4f4, intent_name S16, magic S4"
)
_FIELDS_2 = (
    "sizeof_hdr i4, magic S4, eol_check 4i1, datatype i2, bitpix i2, dim 8i8, intent_p1 f8, "
    "intent_p2 f8, intent_p3 f8, pixdim 8f8, vox_offset i8, scl_slope f8, scl_inter f8, "
    "cal_max f8, cal_min f8, slice_duration f8, toffset f8, slice_start i8, slice_end i8, "
    "descrip S80, aux_file S24, qform_code i4, sform_code i4, quatern_b f8, quatern_c f8, "
    "quatern_d f8, qoffset_x f8, qoffset_y f8, qoffset_z f8, srow_x 4f8, srow_y 4f8, srow_z 4f8, "
    "slice_code i4, xyzt_units i4, intent_code i4, intent_name S16, dim_info u1, unused_str S15"
)
DTYPES = {
    version: np.dtype([tuple(field.split()) for field in fields.split(", ")])
    for version, fields in ((1, _FIELDS_1), (2, _FIELDS_2))
}
"""Version -> the fields, in native order."""
SIZES = {dtype.itemsize: version for version, dtype in DTYPES.items()}
"""Size of a header in bytes, 348 or 540 -> version."""
MM = 2  # NIFTI_UNITS_MM
ROUNDING = {1: 3 * float(np.finfo("f4").eps), 2: 3 * float(np.finfo("f8").eps)}
"""Version -> what the square of a quaternion's first number may be below 0; as in nibabel."""

Affine = NDArray[np.float64]
Endianness = Literal["<", ">"]
NATIVE: Endianness = "<" if sys.byteorder == "little" else ">"


class NiftiHeader:
    """Fields by name: `header["dim"]`. Their values are as stored, in no way checked.

    Args:
        content: 348 bytes (NIfTI-1) or 540 (NIfTI-2).
        endianness: "<" or ">".
    """

    def __init__(self, content: bytes, endianness: Endianness = NATIVE) -> None:
        self.version, self.endianness = SIZES[len(content)], endianness
        dtype = DTYPES[self.version].newbyteorder(endianness)
        self._fields = np.frombuffer(content, dtype).copy()

    @classmethod
    def new(cls, version: int, shape: tuple[int, int, int]) -> NiftiHeader:
        """A header of a uint8 image in mm without sform and qform."""
        header = cls(bytes(DTYPES[version].itemsize))
        header["sizeof_hdr"] = header.sizeof_hdr
        header["magic"] = b"n+1" if version == 1 else b"n+2"
        if version == 2:
            header["eol_check"] = _EOL_CHECK
        header["dim"] = (3, *shape, 1, 1, 1, 1)
        header["pixdim"], header["xyzt_units"] = 1, MM
        header["datatype"], header["bitpix"] = 2, 8
        header["scl_slope"] = 1
        return header

    @classmethod
    def of(cls, header: Any) -> NiftiHeader:
        """A header of ours, or nibabel's Nifti1Header or Nifti2Header."""
        if isinstance(header, cls):
            return header
        return cls(bytes(header.binaryblock), ">" if header.endianness == ">" else "<")

    def __getitem__(self, name: str) -> Any:
        return self._fields[name][0]

    def __setitem__(self, name: str, value: Any) -> None:
        self._fields[name] = value

    @property
    def sizeof_hdr(self) -> int:
        """Size in bytes."""
        return self._fields.itemsize

    def to_bytes(self) -> bytes:
        """The header as stored."""
        return self._fields.tobytes()

    def sform(self) -> Affine:
        """The affine of the sform, (4, 4), whatever its code."""
        rows = [self[f"srow_{axis}"] for axis in "xyz"]
        return np.array([*rows, (0, 0, 0, 1)], np.float64)

    def qform(self) -> Affine:
        """The affine of the qform, (4, 4), whatever its code.

        Raises:
            ValueError: Its quaternion is longer than 1, a voxel size is negative, or pixdim[0] is
                not 1 or -1: programs may refuse it.
        """
        bcd = np.array([self[f"quatern_{axis}"] for axis in "bcd"], np.float64)
        weight = 1 - bcd @ bcd
        if not weight >= -ROUNDING[self.version]:
            raise ValueError(f"the quaternion {bcd} is longer than 1")
        qfac, *sizes = (float(size) for size in self["pixdim"][:4])
        if qfac not in (-1, 1) or min(sizes) < 0:
            raise ValueError(f"pixdim {[qfac, *sizes]}: expected 1 or -1, then positive sizes")
        first = np.sqrt(weight) if weight > ROUNDING[self.version] else 0.0
        affine = np.eye(4)
        affine[:3, :3] = rotation_of([first, *bcd]) * sizes * (1, 1, qfac)
        affine[:3, 3] = [self[f"qoffset_{axis}"] for axis in "xyz"]
        return affine

    def base_affine(self) -> Affine:
        """The affine of the voxel sizes alone, (4, 4): LAS, about the centre, as in nibabel."""
        steps = np.array(self["pixdim"][1:4], np.float64) * (-1, 1, 1)
        affine = np.diag([*steps, 1.0])
        affine[:3, 3] = -steps * (np.array(self["dim"][1:4], np.float64) - 1) / 2
        return affine

    def set_sform(self, affine: Affine, code: int) -> None:
        """Sets the sform."""
        self["sform_code"] = code
        for axis, row in zip("xyz", affine, strict=False):
            self[f"srow_{axis}"] = row

    def set_qform(self, affine: Affine, code: int) -> None:
        """Sets the qform and the voxel sizes; the affine must have perpendicular axes."""
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        rotation = affine[:3, :3] / sizes
        qfac = 1 if np.linalg.det(rotation) > 0 else -1
        self["qform_code"] = code
        self["pixdim"][:4] = qfac, *sizes
        numbers = quaternion_of(rotation * (1, 1, qfac))
        for axis, number, place in zip("bcd", numbers[1:], "xyz", strict=True):
            self[f"quatern_{axis}"] = number
            self[f"qoffset_{place}"] = affine["xyz".index(place), 3]


_EOL_CHECK = (13, 10, 26, 10)


def rotation_of(quaternion: Any) -> NDArray[np.float64]:
    """The rotation (3, 3) of a quaternion (a, b, c, d) of any length; the identity for length 0."""
    a, b, c, d = (float(number) for number in quaternion)
    square = a * a + b * b + c * c + d * d
    if square < np.finfo(np.float64).eps:
        return np.eye(3)
    across = np.array([[0, -d, c], [d, 0, -b], [-c, b, 0]])
    return np.eye(3) + 2 / square * (a * across + across @ across)


def quaternion_of(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quaternion (a, b, c, d), a >= 0, of the nearest rotation.

    Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000: the
    eigenvector of the largest eigenvalue.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, yx + xy, xz + zx],
            [xz - zx, yx + xy, yy - xx - zz, zy + yz],
            [yx - xy, xz + zx, zy + yz, zz - xx - yy],
        ]
    )
    quaternion: NDArray[np.float64] = np.linalg.eigh(symmetric)[1][:, -1]
    return -quaternion if quaternion[0] < 0 else quaternion
