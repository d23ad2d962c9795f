"""Download the published archive and weights from the bucket, a mirror or a local tarball."""
