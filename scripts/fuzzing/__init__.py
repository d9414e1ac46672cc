"""Damaged and hostile files for every reader: how they are made, and who reads them."""
