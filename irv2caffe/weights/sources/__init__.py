"""The names of Inception-ResNet-v2's arrays in each library.

Takes the arrays of a file by name; gives arrays by convolution and role. Imports the modules of
``weights`` below it only.
"""
