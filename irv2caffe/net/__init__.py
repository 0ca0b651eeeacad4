"""1. Describe the network."""
