"""The same reading for long logs, a block of lines at a time."""
