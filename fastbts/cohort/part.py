"""A part of a cohort, so that several processes or machines share its cases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fastbts.errors import OptionsError


@dataclass(frozen=True)
class Part:
    """Part `number` of `n_parts`, counted from 1.

    Raises:
        OptionsError: The number is not within 1 to `n_parts`.
    """

    number: int
    n_parts: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.n_parts:
            raise OptionsError(
                f"part {self.number}/{self.n_parts}: expected a number from 1 to the number of "
                "parts, for example 1/8 to 8/8; SLURM_ARRAY_TASK_ID from 0 needs 1 more"
            )

    @classmethod
    def parse(cls, text: str) -> Part:
        """From "3/8".

        Raises:
            OptionsError: Another form, or see `Part`.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise OptionsError(f"part {text!r}: expected NUMBER/PARTS, for example 3/8")
        return cls(int(found[1]), int(found[2]))

    def of(self, names: Iterable[str]) -> list[str]:
        """The names of this part: every n-th of the sorted names, so parts have similar sizes."""
        return sorted(names)[self.number - 1 :: self.n_parts]

    def __str__(self) -> str:
        return f"part {self.number} of {self.n_parts}"
