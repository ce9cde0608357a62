"""Tables and figures: DataFrames in, Markdown and pictures out."""
