"""Searches: rules for where an answer's tree grows next. They see only the tree; sampling and values are passed to them."""
