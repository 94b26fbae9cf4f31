"""A gate of `make check`: what was released holds. ``rules`` judge, ``baseline`` keeps."""
