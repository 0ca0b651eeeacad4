"""The run folder: its files, its lock, its snapshots, and orders to the trainer at work in it."""
