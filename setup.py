"""Adds configs/ to the packages as ``engine.presets``; all else is in pyproject.toml.

``packages.find`` only finds packages below their own names, and a list in pyproject.toml would have
to name each folder.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["engine*", "strategies*", "populations*"]), "engine.presets"],
    package_dir={"engine.presets": "configs"},
    package_data={"engine.presets": ["*.yaml"]},
)
