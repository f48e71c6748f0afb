"""LLM client: ask a chat model, on an OpenAI-compatible server or loaded here."""
