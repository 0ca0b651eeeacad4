"""Reads finished databases, anybody's, in a guarded process.

In comes the folder of a database; out come a Database value for the other rooms, or a report, a
comparison or a contact sheet for inspect-lmdb. It may import data.lmdb_store and data.records.
"""
