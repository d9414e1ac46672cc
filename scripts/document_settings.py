"""Write docs/configuration.md from the configuration models, or check that it is current.

python scripts/document_settings.py --check
"""

from __future__ import annotations

import sys

from pages import DOCS, write_or_check

from engine.config_file import Setting, describe_settings, preset_names

INTRODUCTION = """# Configuration

A configuration file is YAML and holds only what differs from the defaults below. An unknown or
unsuitable setting stops the command before anything runs, and all problems are reported at once.

```yaml
evolution:
  generations: 20
  recipes:
    - operator: weighted
    - operator: unit
      weight: 0.5
```

`--set evolution.generations=20` changes one setting for one run; the value is YAML too. The
resolved configuration, every setting included, is written into the run directory as `config.yaml`.

Lists in a recipe make a recipe of every combination, here eight, which share its weight evenly:

```yaml
finetune_presets:
  short: {steps: 20}
evolution:
  draw: bandit
  recipes:
    - operator: [weighted, unit]
      align: [auto, none]
      finetune: [default, short]
```

A preset names the settings of `finetune` that differ. With `draw: mix` a child gets a recipe drawn
by weight; with `grid` the recipes take turns, so that all get equally many children; with `bandit`
those whose children improve more on their better parent get more. Whichever it is, `recipes.csv`
in the run directory and `cultivar status` tell what each recipe has come to.

Numbers are read as in YAML 1.2 (`1e-3` is a number, `no` is text). Tags, anchors and repeated keys
are refused. `[]` stands for each entry of a list.
"""
HEADER = "| Setting | Default | Meaning |\n|---|---|---|\n"


def page() -> str:
    """Return the whole page: a table per section."""
    text = [INTRODUCTION, f"Presets: {', '.join(f'`{name}`' for name in preset_names())}.\n"]
    text.append(f"\n## The run\n\n{HEADER}")
    settings = describe_settings()
    text += [row(item) for item in settings if "." not in item.name and item.default]
    for item in settings:
        if not item.default:
            text.append(f"\n## {item.name}\n\n{item.meaning}\n\n{HEADER}")
        elif "." in item.name:
            text.append(row(item))
    return "".join(text)


def row(setting: Setting) -> str:
    """Return one line of a table."""
    cells = (f"`{setting.name}`", f"`{setting.default}`", setting.meaning.replace("``", "`"))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    sys.exit(
        write_or_check(
            DOCS / "configuration.md", "python scripts/document_settings.py", lambda _: page()
        )
    )
