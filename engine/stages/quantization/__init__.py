"""int8 networks out of float ones."""
