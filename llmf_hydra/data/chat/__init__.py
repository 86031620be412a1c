"""From messages to text: `index` knows the named templates, `template` loads one, `jinja` runs it, `tools` writes what
it has no place for, `render` finds the answers in the text, and `calls` reads calls of tools back from an answer."""
