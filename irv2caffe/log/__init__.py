"""4. Read the log."""
