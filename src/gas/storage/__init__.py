"""What lasts: the database with its migrations, blobs by their hash, durable jobs.

Import from the modules: ``database``, ``tables``, ``migrate``, ``blobs``, ``jobs`` (which needs DBOS). The others are
their inner works: ``postgres`` and ``failures`` of the database, ``s3_blobs`` of the blobs (which needs obstore).
"""
