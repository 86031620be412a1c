"""The tabs of the page: each a function that lays out its part and says what happens on a click."""
