"""The presets: installed as the package ``engine.presets``, and found by their names."""
