"""Records: an image file in, the bytes of a Datum out, and back.

Decoding, resizing and encoding of images, the mean, and the files of a database folder. Imports
nothing else of data.
"""
