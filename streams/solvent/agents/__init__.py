"""The Faust agents: each hands its frames to the lanes, and nothing else.

All meaning is in ``engine``, all commits are in ``runtime``.
"""
