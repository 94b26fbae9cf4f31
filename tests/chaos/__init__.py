"""Faults on the real broker, from a seed: workers killed, frozen, cut off; the broker too.

``plan`` makes a schedule from a seed, ``rounds`` carries it out and holds the outcome against the
inputs (``support.exact``), ``launcher`` is a worker that dies at a named step, ``links`` are cables
that can be cut, ``broker`` is a node with one such cable for each worker. ``python -m chaos`` (or
``make chaos``) is the long run, ``test_chaos`` the fast selection, ``scenarios`` load and limits,
``executors`` a race for the same offers in which all are killed.
"""
