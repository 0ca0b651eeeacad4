"""Makes the files that a device needs of a trained net.

In: models and runs. Out: a folder with a simplified net, its weights, class names, preprocessing,
examples. May import inference, train and the floors below; not evaluate or cli.
"""
