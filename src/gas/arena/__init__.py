"""The arena: from a package handed in to a signed receipt, and from an open round to its winner.

``submissions`` takes packages in, ``states`` says what may become of them, ``commitments`` whose they are, ``dispatch``
sees that each goes on or ends, ``workers`` does the work on one as a durable job, ``exam`` judges the entrance exam,
``evaluation`` and ``packages`` tie in the benchmark and the static checks, ``rounds`` opens, ranks and closes rounds,
``receipts`` signs results, ``push`` is the author's side, ``ports`` holds the words they share.
"""
