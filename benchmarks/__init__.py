"""Benchmarks: a seeded workload, one file a question, results written by the runner."""
