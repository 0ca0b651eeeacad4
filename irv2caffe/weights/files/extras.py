"""The packages that are needed for one kind of file only."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from irv2caffe.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needed(package: str, purpose: str, *, extra: str = "weights") -> Iterator[None]:
    """Around the import of a package: names the extra to install where it is missing.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, extra, purpose) from error
