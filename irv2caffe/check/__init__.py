"""Checks a net, its solver and its data before they are trained.

In: a solver or net prototxt of any origin, databases and the user's options. Out: a
report of findings with places, reasons and fixes. Imports ``shapes`` for shapes and connections,
``data`` for facts of databases, ``proto`` and the floors below; of the rooms above only ``train``
and ``cli`` import it.
"""
