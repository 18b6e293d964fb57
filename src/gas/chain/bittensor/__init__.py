"""A live Bittensor network behind the chain's seam; import its modules only where they are used."""
