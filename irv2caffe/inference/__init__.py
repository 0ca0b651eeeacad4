"""A trained net in use: opened with its preprocessing and class names, fed with images, run.

In: run folders, models, images, databases. Out: the values of blobs, class by class. May import
train and the floors below; not evaluate, deploy or cli.
"""
