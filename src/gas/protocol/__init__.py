"""Wire formats and signing: Epistula v2, the messages, both sides of signed HTTP."""
