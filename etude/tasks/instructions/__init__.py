"""Instructions with rules that functions check: the rules, the requests composed from them, and their verifier."""
