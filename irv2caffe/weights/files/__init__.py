"""Formats of weight files; each module returns arrays by name, which are read later.

Takes paths of untrusted files. Imports ``weights.tensors``, ``proto``, ``system`` and ``errors``;
the packages of the extra ``weights`` and torch are imported here only.
"""
