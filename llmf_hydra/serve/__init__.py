"""A trained model in use: `loading` makes it ready, an engine (`engine`, `transformers_engine`) answers with it, `api/`
and `terminal` bring questions to the engine."""
