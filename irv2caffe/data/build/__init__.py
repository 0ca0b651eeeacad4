"""Builds a database: plan, worker processes, the writer, and the files beside the records."""
