"""Students out of teachers."""
