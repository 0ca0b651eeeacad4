"""Tests of a model that tell causes apart which look alike in the curves."""
