"""Forms in which media are published: tables, archives and single files, told apart by their content."""

from gas.datasets.formats.base import (
    DEFAULT_FORMAT_LIMITS,
    FormatLimits,
    RawItem,
    Wanted,
    is_mask,
    is_side_file,
    mask_path,
    masks_among,
)
from gas.datasets.formats.read import kind_of, read_items

__all__ = [
    "DEFAULT_FORMAT_LIMITS",
    "FormatLimits",
    "RawItem",
    "Wanted",
    "is_mask",
    "is_side_file",
    "kind_of",
    "mask_path",
    "masks_among",
    "read_items",
]
