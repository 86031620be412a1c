"""What can be set: `param` declares one parameter, `groups/` holds them all, `choices` describes what is chosen,
`schema` is the whole, and `overrides`, `compose` and `record` bring it in and out."""
