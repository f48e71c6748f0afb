"""KV cache policies for any decoder-only model: eviction, paged retrieval with offload and prefetch, sparse prefill, LazyLLM.

attach         applies a policy to a transformers model: `with attach(model, "snapkv", keep_ratio=0.25)`
policies       the policies by name; `settings`: the same as settings of a command, for the engine
cache_policy   the base class; `full_cache`, `eviction`, `retrieval`, `lazyllm` are its kinds
scores/        importance of cached tokens, one paper's score in each file; `budgets`: how many tokens each layer and head keeps
cache_io       saves and loads a compressed cache
"""
