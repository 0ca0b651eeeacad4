"""Formats of weight files; each module returns arrays by name, which are read later."""
