"""Databases for Caffe: images in, an LMDB folder out; and facts about existing databases.

``build`` makes them, ``inspect`` examines them, ``sources`` lists the images, ``records`` converts
images, ``lmdb_store`` reads and writes LMDB. Imports proto, atomic, ui, system and errors.
"""
