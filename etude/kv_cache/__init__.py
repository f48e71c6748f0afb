"""KV cache policies for any decoder-only model: eviction, paged retrieval with offload and prefetch, sparse prefill, LazyLLM.

attach         use a policy on a model of transformers: `with attach(model, "snapkv", keep_ratio=0.25)`
policies       the policies by name; `settings`: the same as settings of a command, for the engine (`view`)
cache_policy   what every policy answers; `full_cache`, `eviction`, `retrieval`, `lazyllm` are its kinds
scores/        how important a cached token is: one way a file, by the paper's name; `budgets`: how many each layer and head keeps
cache_io       a compressed cache in a file
"""
