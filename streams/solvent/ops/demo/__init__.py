"""The demo: two days of a real crash through the real pipeline on a real broker.

``run`` starts Kafka, a worker and an executor and plays history at them; ``observe`` follows what
they publish; ``view`` shows it live; ``report`` writes the HTML page at the end.
"""
