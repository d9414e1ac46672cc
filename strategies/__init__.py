"""How parents are chosen and combined: operators, alignment, mutation, selection."""
