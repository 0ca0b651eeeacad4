"""Division of a data set into training and validation images, before the databases are built.

``contents`` finds images with the same bytes; ``split`` divides the classes. Imports records.
"""
