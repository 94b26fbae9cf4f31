"""Faust below, the engine above: frames in, one Kafka transaction a slice out.

``transport`` hands an agent one message per fetched run of records; ``lane`` folds the frames of
one partition into its shard and commits slices; ``lanes`` takes partitions over and gives them up;
``restore`` reads a table back; ``recovery`` is the place in Faust where all this hooks in;
``tables`` shows a shard as a Faust table. ``pins`` refuses to start on a Faust it was not made for.
"""
