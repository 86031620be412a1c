"""The words of the command line: one file a word, each with `main(argv)` and a `--help`."""
