"""Reads a finished database: its facts, a report, a comparison, a contact sheet."""
