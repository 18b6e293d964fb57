"""Where the shards of benchmark runs are computed: the seam, and its implementations."""
