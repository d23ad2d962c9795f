"""The published archive and weights, from the bucket, a mirror or a file onto the local disk."""
