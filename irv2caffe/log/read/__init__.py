"""Lines of a log become events, events a history of the run."""
