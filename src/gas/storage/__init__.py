"""What lasts: the database with its migrations, blobs by their hash, durable jobs.

Import from the modules: ``database``, ``tables``, ``migrate``, ``blobs``, ``jobs`` (which needs DBOS).
"""
