"""Rules that a net, its solver and its data are held against before they are trained."""
