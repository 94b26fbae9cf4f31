"""What others do with the same records: each peer a process that prints one JSON object."""
