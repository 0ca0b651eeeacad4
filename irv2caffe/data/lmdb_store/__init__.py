"""LMDB files: records in key order in, committed transactions out, and back.

The only package that imports lmdb. Imports nothing else of data.
"""

from irv2caffe.data.lmdb_store.reading import DatabaseReader, StoreInfo, open_reader
from irv2caffe.data.lmdb_store.writing import DatabaseWriter, last_transaction

__all__ = [
    "DatabaseReader",
    "DatabaseWriter",
    "StoreInfo",
    "last_transaction",
    "open_reader",
]
