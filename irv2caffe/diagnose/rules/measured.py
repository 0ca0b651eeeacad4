"""Causes that tests of a model show."""

from __future__ import annotations
