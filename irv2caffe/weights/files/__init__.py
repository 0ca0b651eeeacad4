"""The files that weights come in; each gives arrays by name, read when they are asked for."""
