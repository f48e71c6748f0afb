"""Searches: rules for where an answer's tree grows next. They see the tree alone; drawing and valuing are handed to them."""
