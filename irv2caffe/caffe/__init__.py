"""The real thing: find it, install it, call it."""
