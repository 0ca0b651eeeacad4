"""2. Build the databases."""
