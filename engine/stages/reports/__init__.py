"""Reports as JSON, Markdown and CSV."""
