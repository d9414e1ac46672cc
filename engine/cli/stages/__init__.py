"""Commands of the documented pipeline, one file per group."""
