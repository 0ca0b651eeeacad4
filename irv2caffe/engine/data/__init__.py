"""The input pipeline of the torch engine: batches of source layers, as Caffe's layers load them.

Takes the Data and ImageData layers of a net; gives the tops of the next batch on the device.
"""
