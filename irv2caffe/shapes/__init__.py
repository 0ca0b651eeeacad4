"""Shapes, parameters, memory and pictures of any net, without Caffe.

Takes a NetParameter, and the shapes that the prototxt lacks; gives NetShapes, NetSummary and files.
May import ``proto``, and what all rooms import: atomic, ui, system, errors.
"""
