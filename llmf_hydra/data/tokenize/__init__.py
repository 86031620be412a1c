"""From text to token ids: `encode` tokenizes, `features` makes the columns of a kind of row, `cutoff` shortens,
`batches` and `workers` go over a dataset, `columns` writes Arrow."""
