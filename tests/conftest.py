"""What tests share: the real Caffe, where it is installed."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def caffe():
    """The Caffe that ``irv2caffe caffe`` would run; skips, with the reason, where there is none."""
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.errors import CaffeNotFoundError

    try:
        return find_caffe()
    except CaffeNotFoundError as error:
        pytest.skip(f"no Caffe here: {error.message}")
