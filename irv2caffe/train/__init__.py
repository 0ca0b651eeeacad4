"""3. Train."""
