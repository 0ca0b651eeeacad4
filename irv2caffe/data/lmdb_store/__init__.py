"""Ordered batched writing and reading of databases: the only room that imports lmdb."""

from irv2caffe.data.lmdb_store.reading import DatabaseReader, StoreInfo, open_reader
from irv2caffe.data.lmdb_store.writing import DatabaseWriter, last_transaction, open_writer

__all__ = [
    "DatabaseReader",
    "DatabaseWriter",
    "StoreInfo",
    "last_transaction",
    "open_reader",
    "open_writer",
]
