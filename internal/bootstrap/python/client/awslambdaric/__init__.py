"""The name of AWS's own client, for functions that import its types."""
