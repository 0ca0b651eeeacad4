"""Building a database: a source and options in; an LMDB folder and a :class:`BuildReport` out.

``make_lmdb`` plans the records, lets worker processes make them, and commits them in order;
``convert_imageset`` lets Caffe's tool do it. Imports sources, records and lmdb_store.
"""
