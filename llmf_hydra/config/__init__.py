"""The typed configuration: one file a group, one declaration a parameter."""
