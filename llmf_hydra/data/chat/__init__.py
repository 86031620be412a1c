"""From messages to text: `template` loads a chat template, `jinja` runs it, `tools` writes what it has no place for,
`render` finds the answers in the text."""
