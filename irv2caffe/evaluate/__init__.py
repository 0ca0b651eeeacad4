"""How good is a trained net, and on which images is it wrong?

In: models and runs, databases, folders of images. Out: errors, tables, figures, pages. May import
inference, train, plot and the floors below; not deploy or cli.
"""
