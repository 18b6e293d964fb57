"""The control plane: ``api`` takes requests, ``views`` decides what is shown to whom, ``uploads`` reads forms."""
